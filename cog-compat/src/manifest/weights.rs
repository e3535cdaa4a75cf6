//! The `weights:` list: managed weights, where they come from and where they appear.
use super::read::{Field, Fields, Findings};
use crate::diagnostic::Diagnostic;
use crate::yaml::Value;

/// One named set of weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightSpec {
    /// Its name: lower case letters and digits, with single `.`, `_` or `-` between them.
    pub name: String,
    /// The absolute directory where a container finds it.
    pub target: String,
    /// Where the files come from, later ones beside earlier ones; at least one.
    pub sources: Vec<WeightSource>,
}

/// One place that weights come from, and which of its files are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightSource {
    /// `hf://org/model[@ref]`, `https://…`, `file://…`, or a path relative to the package.
    pub uri: String,
    /// Only files that match one of these (gitignore patterns); all if empty.
    pub include: Vec<String>,
    /// No file that matches one of these; stronger than `include`.
    pub exclude: Vec<String>,
}

/// How a [`WeightSource`] is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `hf://`: a repository of the Hugging Face hub.
    Hub,
    /// `https://`: one file.
    Https,
    /// `file://`, or a bare path.
    File,
}

impl WeightSource {
    /// How the source is reached, and its address without the scheme. Only `https` keeps it.
    pub fn scheme(&self) -> Option<(Scheme, &str)> {
        let uri = self.uri.as_str();
        match uri.split_once("://") {
            None => Some((Scheme::File, uri)),
            Some(("hf", rest)) => Some((Scheme::Hub, rest)),
            Some(("file", rest)) => Some((Scheme::File, rest)),
            Some(("https", _)) => Some((Scheme::Https, uri)),
            Some(_) => None,
        }
    }
}

pub(super) fn read(field: &Field<'_>, out: &mut Findings) -> Vec<WeightSpec> {
    let mut specs: Vec<WeightSpec> = Vec::new();
    for item in field.few_items(out) {
        let Some(spec) = spec(&item, out) else { continue };
        if specs.iter().any(|known| known.name == spec.name) {
            out.invalid(&item, format!("two weights are called {}", spec.name));
        }
        if let Some(other) = specs.iter().find(|known| overlap(&known.target, &spec.target)) {
            out.invalid(
                &item,
                format!("target {} overlaps {} of {}", spec.target, other.target, other.name),
            );
        }
        specs.push(spec);
    }
    specs
}

fn spec(item: &Field<'_>, out: &mut Findings) -> Option<WeightSpec> {
    let mut fields = Fields::of(item, out)?;
    let name = fields.take("name").and_then(|field| {
        let name = field.text(out)?;
        if !is_weight_name(&name) {
            let message = format!("not a name for weights: {name}");
            let hint =
                "use lower case letters and digits, with single `.`, `_` or `-` between them";
            out.push(Diagnostic::error(field.node.mark, &field.path, message).hint(hint));
        }
        Some(name)
    });
    let target = fields.take("target").and_then(|field| {
        let target = field.text(out)?;
        if let Err(message) = check_target(&target) {
            out.invalid(&field, format!("{message}: {target}"));
        }
        Some(target)
    });
    let sources = fields.take("source").map(|field| sources(&field, out));
    super::note_unknown(&fields, out);
    for (name, given) in
        [("name", name.is_some()), ("target", target.is_some()), ("source", sources.is_some())]
    {
        if !given {
            out.push(Diagnostic::error(fields.mark, &fields.path_of(name), "missing"));
        }
    }
    Some(WeightSpec { name: name?, target: target?, sources: sources? })
}

/// One source, or a list of them.
fn sources(field: &Field<'_>, out: &mut Findings) -> Vec<WeightSource> {
    let Value::Seq(_) = field.node.value else {
        return source(field, out).into_iter().collect();
    };
    let items = field.items(out).unwrap_or_default();
    if items.is_empty() {
        out.invalid(field, "at least one source is needed");
    }
    items.iter().filter_map(|item| source(item, out)).collect()
}

fn source(field: &Field<'_>, out: &mut Findings) -> Option<WeightSource> {
    let mut fields = Fields::of(field, out)?;
    let uri = fields.take("uri").and_then(|field| {
        let uri = field.text(out)?;
        check_uri(&field, &uri, out);
        Some(uri)
    });
    let mut patterns =
        |name| fields.take(name).map(|field| patterns(&field, out)).unwrap_or_default();
    let (include, exclude) = (patterns("include"), patterns("exclude"));
    super::note_unknown(&fields, out);
    if uri.is_none() {
        let missing = Diagnostic::error(fields.mark, &fields.path_of("uri"), "missing");
        out.push(missing.hint("for example `uri: hf://org/model` or `uri: ./weights`"));
    }
    Some(WeightSource { uri: uri?, include, exclude })
}

fn check_uri(field: &Field<'_>, uri: &str, out: &mut Findings) {
    let source = WeightSource { uri: uri.to_owned(), include: Vec::new(), exclude: Vec::new() };
    match source.scheme() {
        None => {
            let message = format!("unknown kind of source: {uri}");
            let hint = "use hf://org/model[@ref], https://…, file://…, or a path";
            out.push(Diagnostic::error(field.node.mark, &field.path, message).hint(hint));
        }
        Some((Scheme::Hub, rest)) => {
            let repository = rest.split_once('@').map_or(rest, |(repository, _)| repository);
            let parts: Vec<&str> = repository.split('/').collect();
            if parts.len() != 2 || parts.iter().any(|part| part.is_empty()) {
                let message = format!("not a hub repository: {uri}");
                out.push(
                    Diagnostic::error(field.node.mark, &field.path, message)
                        .hint("write hf://org/model[@ref]"),
                );
            }
        }
        Some((_, rest)) => {
            if rest.is_empty() {
                out.invalid(field, "empty");
            }
        }
    }
}

fn patterns(field: &Field<'_>, out: &mut Findings) -> Vec<String> {
    let mut patterns = Vec::new();
    for item in field.items(out).unwrap_or_default() {
        let Some(pattern) = item.text(out) else { continue };
        if let Some(message) = pattern_fault(&pattern) {
            out.invalid(&item, format!("{message}: {pattern}"));
        }
        patterns.push(pattern);
    }
    patterns
}

/// What is wrong with a file pattern, in Cog's words.
pub(super) fn pattern_fault(pattern: &str) -> Option<&'static str> {
    if pattern.trim().is_empty() {
        Some("pattern must not be empty")
    } else if pattern.starts_with('!') {
        Some("negation patterns (starting with '!') are not supported")
    } else if pattern.contains('\\') {
        Some("backslashes are not supported")
    } else {
        None
    }
}

/// `^[a-z0-9]+([._-][a-z0-9]+)*$`
pub(super) fn is_weight_name(name: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    name.split(['.', '_', '-']).all(word)
}

/// What is wrong with a target directory, in Cog's words where Cog has any.
pub(super) fn check_target(target: &str) -> Result<(), &'static str> {
    if !target.starts_with('/') {
        Err("target must be an absolute path")
    } else if target.trim_end_matches('/').is_empty() {
        Err("target must not be the container root \"/\"")
    } else if target.split('/').any(|part| part == "..") {
        Err("target must not contain `..`")
    } else {
        Ok(())
    }
}

/// Whether one directory is the other or lies in it.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    let parts = |path: &'_ str| -> Vec<String> {
        path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
    };
    let (a, b) = (parts(a), parts(b));
    let common = a.len().min(b.len());
    a[..common] == b[..common]
}
