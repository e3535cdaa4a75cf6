//! A YAML document as a tree with positions, in the meaning that Cog's parser (go-yaml) gives it.
//!
//! The tree keeps every scalar as its text and whether it was quoted, because go-yaml decides what `3.10` or `yes` is
//! only when it knows the type of the field. Limits are on the expanded tree, so aliases cannot multiply without bound.
use std::collections::HashMap;
use std::rc::Rc;

use serde_saphyr::granit_parser::{self, Event, Marker, Parser, ScalarStyle, Tag};

use crate::diagnostic::{Diagnostic, Mark};

/// Nodes and bytes of the tree after aliases are expanded, and its depth.
const MAX_NODES: usize = 50_000;
const MAX_BYTES: usize = 8 << 20;
const MAX_DEPTH: usize = 64;

/// One value of the tree; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) value: Value,
    weight: Weight,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Scalar(Scalar),
    Seq(Rc<[Node]>),
    Map(Rc<[Entry]>),
}

#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    pub(crate) text: Rc<str>,
    /// Neither quoted, nor a block scalar, nor tagged `!!str`: may mean a number or a boolean.
    pub(crate) plain: bool,
}

/// One key of a mapping and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Rc<str>,
    pub(crate) mark: Mark,
    pub(crate) value: Node,
}

/// What a node costs when an alias repeats it.
#[derive(Debug, Clone, Copy)]
struct Weight {
    nodes: usize,
    bytes: usize,
}

/// Parses the first document of `text`. Faults that do not end the parse (a duplicate key, an unknown alias) go to
/// `out`; one that does is the `Err`. An empty document is null.
pub(crate) fn parse(text: &str, out: &mut Vec<Diagnostic>) -> Result<Node, Diagnostic> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut composer = Composer { parser, anchors: HashMap::new(), nodes: 0, bytes: 0, out };
    composer.document()
}

struct Composer<'t, 'o> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    anchors: HashMap<usize, Option<Node>>,
    nodes: usize,
    bytes: usize,
    out: &'o mut Vec<Diagnostic>,
}

fn mark(marker: &Marker) -> Mark {
    Mark { line: marker.line().max(1), column: marker.col() + 1 }
}

impl<'t> Composer<'t, '_> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Mark)>, Diagnostic> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => Ok(Some((event, mark(&span.start)))),
            Some(Err(error)) => Err(Diagnostic::error(
                mark(error.marker()),
                "",
                format!("invalid YAML: {}", error.info()),
            )),
        }
    }

    fn document(&mut self) -> Result<Node, Diagnostic> {
        while let Some((event, at)) = self.next()? {
            match event {
                Event::StreamEnd | Event::DocumentEnd => break,
                Event::StreamStart | Event::DocumentStart(..) => {}
                event => return self.node(event, at, 0),
            }
        }
        self.leaf(Mark::START, Value::Null, 0)
    }

    fn node(&mut self, event: Event<'t>, at: Mark, depth: usize) -> Result<Node, Diagnostic> {
        if depth > MAX_DEPTH {
            return Err(Diagnostic::error(
                at,
                "",
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        let (anchor, node) = match event {
            Event::Alias(id) => return self.alias(id, at),
            Event::UnresolvedAlias(name) => {
                self.out.push(Diagnostic::error(at, "", format!("unknown anchor: *{name}")));
                return self.leaf(at, Value::Null, 0);
            }
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, self.scalar(at, &text, style, tag.as_deref())?)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.anchors.insert(anchor, None);
                (anchor, self.sequence(at, depth)?)
            }
            Event::MappingStart(_, anchor, _) => {
                self.anchors.insert(anchor, None);
                (anchor, self.mapping(at, depth)?)
            }
            _ => return Err(Diagnostic::error(at, "", "invalid YAML: a value was expected")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, Some(node.clone()));
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, at: Mark) -> Result<Node, Diagnostic> {
        let Some(Some(target)) = self.anchors.get(&id).cloned() else {
            return Err(Diagnostic::error(at, "", "an alias refers to the value that contains it"));
        };
        self.charge(at, target.weight)?;
        Ok(Node { mark: at, ..target })
    }

    fn scalar(
        &mut self,
        at: Mark,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
    ) -> Result<Node, Diagnostic> {
        let tagged = tag.and_then(Tag::core_suffix);
        let plain = style == ScalarStyle::Plain && tagged != Some("str");
        let null = plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
        let value =
            if null { Value::Null } else { Value::Scalar(Scalar { text: text.into(), plain }) };
        self.leaf(at, value, text.len())
    }

    fn leaf(&mut self, at: Mark, value: Value, bytes: usize) -> Result<Node, Diagnostic> {
        let weight = Weight { nodes: 1, bytes };
        self.charge(at, weight)?;
        Ok(Node { mark: at, value, weight })
    }

    fn charge(&mut self, at: Mark, weight: Weight) -> Result<(), Diagnostic> {
        self.nodes = self.nodes.saturating_add(weight.nodes);
        self.bytes = self.bytes.saturating_add(weight.bytes);
        if self.nodes > MAX_NODES || self.bytes > MAX_BYTES {
            let message = format!(
                "too large once aliases are expanded: over {MAX_NODES} values or {MAX_BYTES} bytes"
            );
            return Err(Diagnostic::error(at, "", message));
        }
        Ok(())
    }

    fn sequence(&mut self, at: Mark, depth: usize) -> Result<Node, Diagnostic> {
        let mut items = Vec::new();
        let mut weight = self.leaf(at, Value::Null, 0)?.weight;
        loop {
            match self.next()? {
                None | Some((Event::SequenceEnd, _)) => break,
                Some((event, at)) => items.push(self.node(event, at, depth + 1)?),
            }
        }
        items.iter().for_each(|item| weight.add(item.weight));
        Ok(Node { mark: at, value: Value::Seq(items.into()), weight })
    }

    fn mapping(&mut self, at: Mark, depth: usize) -> Result<Node, Diagnostic> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<Rc<str>, Mark> = HashMap::new();
        let mut merges = Vec::new();
        let mut weight = self.leaf(at, Value::Null, 0)?.weight;
        loop {
            let (key, key_at) = match self.next()? {
                None | Some((Event::MappingEnd, _)) => break,
                Some((event, at)) => (self.node(event, at, depth + 1)?, at),
            };
            let Some((event, value_at)) = self.next()? else { break };
            let value = self.node(event, value_at, depth + 1)?;
            weight.add(key.weight);
            weight.add(value.weight);
            let Some((key, plain)) = key_text(&key.value) else {
                self.out.push(Diagnostic::error(
                    key_at,
                    "",
                    "a key must be a word, not a list or a mapping",
                ));
                continue;
            };
            if plain && &*key == "<<" {
                merges.push(value);
            } else if let Some(first) = seen.get(&key) {
                let message = format!("duplicate key, already given in line {}: {key}", first.line);
                self.out.push(Diagnostic::error(key_at, "", message));
            } else {
                seen.insert(Rc::clone(&key), key_at);
                entries.push(Entry { key, mark: key_at, value });
            }
        }
        merges.iter().for_each(|merge| self.merge(merge, &mut entries, &mut seen));
        Ok(Node { mark: at, value: Value::Map(entries.into()), weight })
    }

    /// `<<`: takes over keys that the mapping does not give itself; the first of several sources wins.
    fn merge(
        &mut self,
        source: &Node,
        entries: &mut Vec<Entry>,
        seen: &mut HashMap<Rc<str>, Mark>,
    ) {
        let sources = match &source.value {
            Value::Seq(items) => items,
            _ => std::slice::from_ref(source),
        };
        for source in sources {
            let Value::Map(merged) = &source.value else {
                self.out.push(Diagnostic::error(
                    source.mark,
                    "<<",
                    "a merge key needs a mapping or a list of mappings",
                ));
                continue;
            };
            for entry in merged.iter() {
                if seen.insert(Rc::clone(&entry.key), entry.mark).is_none() {
                    entries.push(entry.clone());
                }
            }
        }
    }
}

impl Weight {
    fn add(&mut self, other: Self) {
        self.nodes = self.nodes.saturating_add(other.nodes);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

fn key_text(key: &Value) -> Option<(Rc<str>, bool)> {
    match key {
        Value::Null => Some(("null".into(), false)),
        Value::Scalar(scalar) => Some((Rc::clone(&scalar.text), scalar.plain)),
        Value::Seq(_) | Value::Map(_) => None,
    }
}

impl Scalar {
    /// A boolean as go-yaml reads one into a typed field: YAML 1.1 words, and never a quoted string.
    pub(crate) fn boolean(&self) -> Option<bool> {
        const TRUE: [&str; 11] =
            ["true", "True", "TRUE", "y", "Y", "yes", "Yes", "YES", "on", "On", "ON"];
        const FALSE: [&str; 11] =
            ["false", "False", "FALSE", "n", "N", "no", "No", "NO", "off", "Off", "OFF"];
        let text = &*self.text;
        match (self.plain, TRUE.contains(&text), FALSE.contains(&text)) {
            (true, true, _) => Some(true),
            (true, _, true) => Some(false),
            _ => None,
        }
    }

    /// An integer: decimal, `0x`, `0o`, `0b`, with `_` between digits; never a quoted string.
    pub(crate) fn integer(&self) -> Option<i64> {
        if !self.plain {
            return None;
        }
        let text = self.text.replace('_', "");
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text.strip_prefix('+').unwrap_or(&text)),
        };
        if !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let (radix, digits) = match digits.get(..2) {
            Some("0x") => (16, &digits[2..]),
            Some("0o") => (8, &digits[2..]),
            Some("0b") => (2, &digits[2..]),
            _ => (10, digits),
        };
        i64::from_str_radix(digits, radix).ok()?.checked_mul(sign)
    }

    /// A number, integer or not; never a quoted string.
    pub(crate) fn float(&self) -> Option<f64> {
        if let Some(integer) = self.integer() {
            return Some(integer as f64);
        }
        let numeric =
            |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E' | '_');
        let is_number = self.plain
            && self.text.chars().all(numeric)
            && self.text.contains(|c: char| c.is_ascii_digit());
        is_number.then(|| self.text.replace('_', "").parse().ok()).flatten()
    }
}

impl Node {
    /// What kind of value it is, in words of a `cog.yaml` author.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar(scalar) if scalar.boolean().is_some() && scalar.text.len() > 1 => {
                "a boolean"
            }
            Value::Scalar(scalar) if scalar.integer().is_some() => "an integer",
            Value::Scalar(scalar) if scalar.float().is_some() => "a number",
            Value::Scalar(_) => "a string",
        }
    }

    /// The same value as JSON, with the types that YAML 1.2 gives to plain scalars.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Seq(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(entries) => Json::Object(
                entries.iter().map(|e| (e.key.to_string(), e.value.to_json())).collect(),
            ),
            Value::Scalar(scalar) => match (&*scalar.text, scalar.plain) {
                ("true" | "True" | "TRUE", true) => Json::Bool(true),
                ("false" | "False" | "FALSE", true) => Json::Bool(false),
                (text, _) => (scalar.integer().map(Json::from))
                    .or_else(|| scalar.float().map(Json::from))
                    .unwrap_or_else(|| Json::String(text.to_owned())),
            },
        }
    }
}
