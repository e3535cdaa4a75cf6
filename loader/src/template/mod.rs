//! Chat templates: messages to prompt text, as HF transformers' `apply_chat_template` writes it.
//!
//! A template is a program that comes with a package. Its steps, its recursion and the size of its output are bounded
//! here. Three things are not, because the template engine has no limit for them, and each ends the process: a string
//! doubled forty times in forty steps (out of memory), an expression of thousands of operators, and a value nested in
//! itself (both overflow the stack). So templates of others are compiled and rendered in a worker with bounded memory.

mod error;
mod format;
mod json;
mod messages;
mod python;
mod select;
mod syntax;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::{Map, Value as Json};

pub use error::TemplateError;
pub use select::{TemplateOrigin, TemplateText, select};

use crate::limits::LIMITS;
use crate::metadata::SpecialTokens;
use error::Raised;
use messages::ContentFormat;

const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// What a chat is rendered from. Values have the shapes of OpenAI's chat API.
#[derive(Clone, Copy, Debug)]
pub struct RenderInput<'a> {
    /// A list of objects with `role`, `content` (a string, or text parts) and more.
    pub messages: &'a Json,
    /// A list of tool definitions, as they came.
    pub tools: Option<&'a Json>,
    /// Further variables (`chat_template_kwargs`). They cannot replace the others or the special tokens.
    pub extra: Option<&'a Map<String, Json>>,
    /// Whether to open an answer of the assistant at the end.
    pub add_generation_prompt: bool,
    /// What `strftime_now` writes, in UTC. Given from outside, so that a request can be rendered again later.
    pub unix_seconds: i64,
}

/// A compiled chat template.
pub struct ChatTemplate {
    kind: Kind,
    special: SpecialTokens,
}

enum Kind {
    Jinja { environment: Box<Environment<'static>>, content: ContentFormat, has_tool_use: bool },
    Format(format::PromptFormat),
}

impl ChatTemplate {
    /// Compiles the templates of a package.
    pub fn compile(text: &TemplateText, special: SpecialTokens) -> Result<Self, TemplateError> {
        if let Some(format) = format::PromptFormat::parse(text)? {
            return Ok(Self { kind: Kind::Format(format), special });
        }
        let mut environment = environment()?;
        let mut content = ContentFormat::Text;
        for named in &text.templates {
            let size = named.template.len() as u64;
            if size > LIMITS.template_bytes {
                return Err(TemplateError::TooLarge { size, limit: LIMITS.template_bytes });
            }
            let source = syntax::without_generation_tags(&named.template);
            content = content.max(ContentFormat::of(&source));
            let syntax = |e: Error| TemplateError::Syntax {
                origin: text.origin.to_string(),
                line: e.line().unwrap_or(0),
                reason: describe(&e),
            };
            environment.add_template_owned(named.name.clone(), source).map_err(syntax)?;
        }
        let has = |name| environment.get_template(name).is_ok();
        let has_tool_use = has(TOOL_USE);
        if !has(DEFAULT) {
            return Err(TemplateError::NoDefault { origin: text.origin.to_string() });
        }
        Ok(Self {
            kind: Kind::Jinja { environment: Box::new(environment), content, has_tool_use },
            special,
        })
    }

    /// Renders a chat to the text that `PackageTokenizer::encode_chat` takes.
    pub fn render(&self, input: &RenderInput<'_>) -> Result<String, TemplateError> {
        let messages = list(input.messages).ok_or(TemplateError::NotAList)?;
        let tools = input.tools.and_then(list).unwrap_or_default();
        let (environment, content, has_tool_use) = match &self.kind {
            Kind::Format(format) => return format.render(messages),
            Kind::Jinja { environment, content, has_tool_use } => {
                (environment, *content, *has_tool_use)
            }
        };
        let name = if has_tool_use && !tools.is_empty() { TOOL_USE } else { DEFAULT };
        // Fuel is a setting of an environment, and cloning one shares its templates.
        let mut environment = Environment::clone(environment);
        let items = (messages.len() + tools.len()) as u64;
        environment.set_fuel(Some(LIMITS.fuel + items.saturating_mul(LIMITS.fuel_per_item)));
        let now = input.unix_seconds;
        environment.add_function("strftime_now", move |format: &str| strftime(format, now));
        let messages = messages::prepare(messages, content)?;
        let template = environment.get_template(name).map_err(|e| Self::failure(&e, false))?;
        let mut output = Bounded { bytes: Vec::new(), limit: LIMITS.rendered_bytes, full: false };
        let rendered =
            template.render_captured_to(self.context(messages, tools, input), &mut output);
        if let Err(e) = rendered {
            return Err(Self::failure(&e, output.full));
        }
        String::from_utf8(output.bytes).map_err(|_| TemplateError::Render {
            line: 0,
            reason: "the output is not UTF-8".to_owned(),
        })
    }

    fn context(&self, messages: Value, tools: &[Json], input: &RenderInput<'_>) -> Value {
        let mut variables: Vec<(String, Value)> = input
            .extra
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), messages::value(v)))
            .collect();
        let tools = match tools {
            [] => Value::from(()),
            tools => tools.iter().map(messages::value).collect(),
        };
        let mut set = |name: &str, value: Value| variables.push((name.to_owned(), value));
        set("messages", messages);
        set("tools", tools);
        set("documents", Value::from(()));
        set("add_generation_prompt", Value::from(input.add_generation_prompt));
        let special = [
            ("bos_token", &self.special.bos),
            ("eos_token", &self.special.eos),
            ("pad_token", &self.special.pad),
            ("unk_token", &self.special.unk),
        ];
        for (name, token) in special {
            if let Some(token) = token {
                set(name, Value::from(token.as_str()));
            }
        }
        Value::from_pairs(variables)
    }

    fn failure(error: &Error, full: bool) -> TemplateError {
        if full {
            return TemplateError::OutputTooLarge { limit: LIMITS.rendered_bytes };
        }
        if let Some(Raised(message)) = raised(error) {
            return TemplateError::Raised { message: message.clone() };
        }
        match error.kind() {
            ErrorKind::OutOfFuel => TemplateError::TooLong,
            _ => TemplateError::Render { line: error.line().unwrap_or(0), reason: describe(error) },
        }
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Jinja { .. } => "jinja",
            Kind::Format(_) => "format",
        };
        f.debug_struct("ChatTemplate").field("kind", &kind).finish_non_exhaustive()
    }
}

/// What HF's environment has: Python methods, `tojson` as JSON and not HTML, `raise_exception`, `strftime_now`.
fn environment() -> Result<Environment<'static>, TemplateError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let syntax = syntax.map_err(|e| TemplateError::Render { line: 0, reason: describe(&e) })?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_recursion_limit(LIMITS.recursion);
    environment.set_debug(false);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|output, _, value| python::write(output, value));
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", |value: &Value| python::to_string(value));
    environment.add_function("raise_exception", raise_exception);
    Ok(environment)
}

fn raise_exception(message: &Value, _rest: Kwargs) -> Result<Value, Error> {
    let raised = Raised(message.to_string());
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(raised))
}

fn strftime(format: &str, unix_seconds: i64) -> Result<String, Error> {
    Timestamp::from_second(unix_seconds)
        .and_then(|now| jiff::fmt::strtime::format(format, &now.to_zoned(TimeZone::UTC)))
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
}

fn list(value: &Json) -> Option<&[Json]> {
    value.as_array().map(Vec::as_slice)
}

/// The message of `raise_exception`, wherever in the chain of causes it is.
fn raised(error: &Error) -> Option<&Raised> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(raised) = error.downcast_ref::<Raised>() {
            return Some(raised);
        }
        cause = error.source();
    }
    None
}

fn describe(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// Collects output up to a limit, and fails beyond it.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() > self.limit - self.bytes.len() {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
