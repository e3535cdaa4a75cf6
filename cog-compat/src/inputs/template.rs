//! Prompt templates with the marks of Python's `str.format`.
use super::InputError;

/// Fills `{prompt}` and `{system_prompt}` in as Python's `str.format` does; `{{` and `}}` stand for braces. The values
/// are never read as templates. Indexes, attributes and widths, which Python would take, are errors here.
pub fn render_template(
    template: &str,
    prompt: &str,
    system_prompt: &str,
) -> Result<String, InputError> {
    if !prompt.is_empty() && !template.contains("{prompt}") {
        return Err(InputError::BadPromptTemplate);
    }
    let mut text = String::with_capacity(template.len() + prompt.len() + system_prompt.len());
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, mark) = rest.split_at(at);
        text.push_str(before);
        if let Some(after) = mark.strip_prefix("{{") {
            text.push('{');
            rest = after;
        } else if let Some(after) = mark.strip_prefix("}}") {
            text.push('}');
            rest = after;
        } else if let Some(after) = mark.strip_prefix('{') {
            let (field, after) = after.split_once('}').ok_or_else(|| unclosed(after))?;
            text.push_str(value(field, prompt, system_prompt)?);
            rest = after;
        } else {
            return Err(fault("Single '}' encountered in format string"));
        }
    }
    text.push_str(rest);
    Ok(text)
}

fn value<'v>(field: &str, prompt: &'v str, system_prompt: &'v str) -> Result<&'v str, InputError> {
    let plain = field.strip_suffix(':').unwrap_or(field);
    match plain.strip_suffix("!s").unwrap_or(plain) {
        "prompt" => Ok(prompt),
        "system_prompt" => Ok(system_prompt),
        "" => Err(fault("Replacement index 0 out of range for positional args tuple")),
        name if name.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(fault(&format!("Replacement index {name} out of range for positional args tuple")))
        }
        name if name.starts_with("prompt") || name.starts_with("system_prompt") => {
            Err(fault(&format!("only {{prompt}} and {{system_prompt}} are supported: {{{name}}}")))
        }
        name => Err(fault(&format!("KeyError('{name}')"))),
    }
}

fn unclosed(after: &str) -> InputError {
    if after.is_empty() {
        fault("Single '{' encountered in format string")
    } else {
        fault("expected '}' before end of string")
    }
}

fn fault(reason: &str) -> InputError {
    InputError::PromptTemplate(reason.to_owned())
}
