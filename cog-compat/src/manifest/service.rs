//! The blocks about a running container: `concurrency:`, `environment:`, `observability:`.
use std::collections::HashSet;

use super::read::{Field, Fields, Findings};
use crate::diagnostic::Diagnostic;
use crate::yaml::Value;

/// How many predictions a container runs at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// At most so many; at least 1.
    pub max: Option<u32>,
    /// What an autoscaler should aim at.
    pub default_target: Option<u32>,
}

/// Tracing of a container (Cog 0.23 and later).
#[derive(Debug, Clone, PartialEq)]
pub struct Observability {
    /// A Python file that configures tracing.
    pub config: Option<String>,
    /// The traces themselves.
    pub traces: Option<Traces>,
}

/// Which traces are sent, and how an inbound trace is found.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// Whether traces are sent.
    pub enabled: bool,
    /// Name of the OpenTelemetry sampler.
    pub sampler: Option<String>,
    /// Its argument, as written.
    pub sampler_arg: Option<String>,
    /// A further inbound header that carries a trace.
    pub trace_header: Option<String>,
    /// Its format, `w3c` or `jaeger`.
    pub trace_header_format: Option<String>,
}

/// A bare number is taken as `max`: Cog refuses it, but its meaning is plain.
pub(super) fn concurrency(field: &Field<'_>, out: &mut Findings) -> Option<Concurrency> {
    if field.scalar().is_some() {
        let max = field.count(1, out)?;
        let warning = Diagnostic::warning(
            field.node.mark,
            &field.path,
            "a bare number: `cog build` refuses it",
        );
        out.push(warning.hint(format!("write `concurrency: {{max: {max}}}`")));
        return Some(Concurrency { max: Some(max), default_target: None });
    }
    let mut fields = Fields::of(field, out)?;
    let max = fields.take("max").and_then(|field| field.count(1, out));
    let default_target = fields.take("default_target").and_then(|field| field.count(0, out));
    super::note_unknown(&fields, out);
    Some(Concurrency { max, default_target })
}

/// A list of `NAME=value`. A mapping is taken too: Cog refuses it, but its meaning is plain.
pub(super) fn environment(field: &Field<'_>, out: &mut Findings) -> Vec<(String, String)> {
    let pairs = if let Value::Map(_) = field.node.value {
        from_mapping(field, out)
    } else {
        from_list(field, out)
    };
    let mut environment = Vec::with_capacity(pairs.len());
    let mut seen = HashSet::new();
    for (item, name, value) in pairs {
        if !is_variable_name(&name) {
            let message = format!("not a name for an environment variable: {name}");
            out.push(
                Diagnostic::error(item.node.mark, &item.path, message).hint("write `NAME=value`"),
            );
        } else if !seen.insert(name.clone()) {
            out.invalid(&item, format!("given twice: {name}"));
        } else {
            environment.push((name, value));
        }
    }
    environment
}

type Pair<'n> = (Field<'n>, String, String);

fn from_list<'n>(field: &Field<'n>, out: &mut Findings) -> Vec<Pair<'n>> {
    let mut pairs = Vec::new();
    for item in field.items(out).unwrap_or_default() {
        let Some(text) = item.text(out) else { continue };
        match text.split_once('=') {
            Some((name, value)) => pairs.push((item, name.to_owned(), value.to_owned())),
            None => out.push(
                Diagnostic::error(item.node.mark, &item.path, format!("no `=` in: {text}"))
                    .hint("write `NAME=value`"),
            ),
        }
    }
    pairs
}

fn from_mapping<'n>(field: &Field<'n>, out: &mut Findings) -> Vec<Pair<'n>> {
    let warning =
        Diagnostic::warning(field.node.mark, &field.path, "a mapping: `cog build` refuses it");
    out.push(warning.hint("write a list of `NAME=value`"));
    let Value::Map(entries) = &field.node.value else { return Vec::new() };
    let mut pairs = Vec::new();
    for entry in entries.iter() {
        let item = Field { node: &entry.value, path: format!("{}.{}", field.path, entry.key) };
        let value =
            if let Value::Null = entry.value.value { Some(String::new()) } else { item.text(out) };
        if let Some(value) = value {
            pairs.push((item, entry.key.to_string(), value));
        }
    }
    pairs
}

/// `[A-Za-z_][A-Za-z0-9_]*`
pub(super) fn is_variable_name(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

pub(super) fn observability(field: &Field<'_>, out: &mut Findings) -> Option<Observability> {
    let mut fields = Fields::of(field, out)?;
    let config = fields.take("config").and_then(|field| field.text(out));
    let traces = fields.take("traces").and_then(|field| traces(&field, out));
    super::note_unknown(&fields, out);
    Some(Observability { config, traces })
}

fn traces(field: &Field<'_>, out: &mut Findings) -> Option<Traces> {
    let mut fields = Fields::of(field, out)?;
    let enabled = fields.take("enabled").and_then(|field| field.boolean(out)).unwrap_or_default();
    let mut text = |name, out: &mut Findings| fields.take(name).and_then(|field| field.text(out));
    let (sampler, sampler_arg) = (text("sampler", out), text("sampler_arg", out));
    let (trace_header, trace_header_format) =
        (text("trace_header", out), text("trace_header_format", out));
    super::note_unknown(&fields, out);
    Some(Traces { enabled, sampler, sampler_arg, trace_header, trace_header_format })
}
