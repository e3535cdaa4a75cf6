//! The prompt of a chat request: messages, tools and template variables, checked and brought into
//! the one form that chat templates are written for.

use serde_json::{Map, Value};

use super::messages;
use super::request::unsupported;
use crate::error::ApiError;
use crate::ipc::Prompt;
use crate::wire::fields::Fields;

/// Reads the prompt, and whether the model may call tools.
pub(crate) fn chat_prompt(body: &Fields<'_>) -> Result<(Prompt, bool), ApiError> {
    let messages = messages::normalized(body)?;
    let tools = tools(body)?;
    let offers_tools = tools.is_some();
    let prompt = Prompt::Chat {
        messages: Value::Array(messages).to_string(),
        tools,
        template_kwargs: template_kwargs(body)?,
        plain_fallback: false,
    };
    Ok((prompt, offers_tools))
}

/// The tools as JSON, unless there are none or the model must not call them: what is not in the
/// prompt cannot be called.
fn tools(body: &Fields<'_>) -> Result<Option<String>, ApiError> {
    let tools = body.array("tools")?.unwrap_or_default();
    for (index, tool) in tools.iter().enumerate() {
        check_tool(&Fields::of(tool, format!("tools[{index}]"))?)?;
    }
    let offered = tool_choice(body)? && !tools.is_empty();
    Ok(offered.then(|| Value::Array(tools.to_vec()).to_string()))
}

fn check_tool(tool: &Fields<'_>) -> Result<(), ApiError> {
    match tool.string("type")? {
        Some("function") => {}
        Some(kind) => {
            let message = format!("only tools of the type function are supported: {kind}");
            return Err(unsupported(&tool.path("type"), &message));
        }
        None => return Err(tool.missing("type")),
    }
    let function = tool.object("function")?.ok_or_else(|| tool.missing("function"))?;
    match function.string("name")? {
        Some("") => return Err(function.wrong("name", "a name")),
        Some(_) => {}
        None => return Err(function.missing("name")),
    }
    function.string("description")?;
    function.object("parameters")?;
    Ok(())
}

/// Whether the model may call tools.
fn tool_choice(body: &Fields<'_>) -> Result<bool, ApiError> {
    let forced = |what: &str| {
        let message = format!("`tool_choice` is supported only as auto and none: {what}");
        Err(unsupported("tool_choice", &message))
    };
    match body.get("tool_choice") {
        None => Ok(true),
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => Ok(true),
            "none" => Ok(false),
            "required" => forced("required"),
            _ => Err(body.wrong("tool_choice", "auto or none")),
        },
        Some(Value::Object(_)) => forced("a named tool"),
        Some(_) => Err(body.wrong("tool_choice", "auto or none")),
    }
}

fn template_kwargs(body: &Fields<'_>) -> Result<Option<String>, ApiError> {
    let given = body.object("chat_template_kwargs")?;
    let mut kwargs: Map<String, Value> = given.map_or_else(Map::new, |given| given.map().clone());
    if let Some(effort) = body.string("reasoning_effort")? {
        kwargs.entry("reasoning_effort").or_insert_with(|| effort.into());
    }
    Ok((!kwargs.is_empty()).then(|| Value::Object(kwargs).to_string()))
}
