//! The `tojson` filter as HF defines it: Python's `json.dumps` with `ensure_ascii=False`, not HTML-safe.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::python;

/// Nesting beyond which a value is refused, as `serde_json` does when it reads one.
const MAX_DEPTH: usize = 128;

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
#[expect(clippy::needless_pass_by_value, reason = "the form that the template engine calls")]
pub(super) fn tojson(value: &Value, rest: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let argument = |at: usize, name: &str| -> Result<Value, Error> {
        let named: Option<Value> = kwargs.get(name)?;
        Ok(named.or_else(|| rest.get(at).cloned()).unwrap_or_else(|| Value::from(())))
    };
    let ensure_ascii = argument(0, "ensure_ascii")?.is_true();
    let indent = argument(1, "indent")?;
    let separators = argument(2, "separators")?;
    let sort_keys = argument(3, "sort_keys")?.is_true();
    kwargs.assert_all_used()?;
    let indent = if indent.is_none() { None } else { Some(indentation(&indent)?) };
    let (item, key) = if separators.is_none() {
        (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned())
    } else {
        (separator(&separators, 0)?, separator(&separators, 1)?)
    };
    let mut dump =
        Dump { out: String::new(), ensure_ascii, indent, item, key, sort_keys, depth: 0 };
    dump.value(value)?;
    Ok(dump.out)
}

fn indentation(indent: &Value) -> Result<String, Error> {
    if let Some(text) = indent.as_str() {
        return Ok(text.to_owned());
    }
    let spaces = i64::try_from(indent.clone())?;
    Ok(" ".repeat(usize::try_from(spaces).unwrap_or(0).min(64)))
}

fn separator(separators: &Value, at: usize) -> Result<String, Error> {
    let value = separators.get_item(&Value::from(at))?;
    value.as_str().map(str::to_owned).ok_or_else(|| {
        Error::new(ErrorKind::InvalidOperation, "tojson: separators must be two strings")
    })
}

struct Dump {
    out: String,
    ensure_ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
    depth: usize,
}

impl Dump {
    fn value(&mut self, value: &Value) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => python::number(&mut self.out, value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.collect::<Vec<_>>();
                self.container('[', ']', items.iter(), Dump::value)?;
            }
            ValueKind::Map => self.map(value)?,
            kind => {
                let message = format!("tojson: a value of type {kind} has no JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn map(&mut self, value: &Value) -> Result<(), Error> {
        let mut entries = Vec::new();
        for key in value.try_iter()? {
            let item = value.get_item(&key)?;
            entries.push((name(&key)?, item));
        }
        if self.sort_keys {
            entries.sort_by(|a, b| a.0.cmp(&b.0));
        }
        self.container('{', '}', entries.iter(), |dump, (name, item)| {
            dump.string(name);
            let key = dump.key.clone();
            dump.out.push_str(&key);
            dump.value(item)
        })
    }

    fn container<T>(
        &mut self,
        open: char,
        close: char,
        items: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.depth == MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: nested too deeply"));
        }
        self.out.push(open);
        let empty = items.len() == 0;
        self.depth += 1;
        for (at, item) in items.enumerate() {
            if at > 0 {
                self.out.push_str(&self.item);
            }
            self.new_line();
            write(self, item)?;
        }
        self.depth -= 1;
        if !empty {
            self.new_line();
        }
        self.out.push(close);
        Ok(())
    }

    fn new_line(&mut self) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..self.depth {
                self.out.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => self.escape(c),
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, c: char) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(self.out, "\\u{unit:04x}");
        }
    }
}

/// A key as `json.dumps` writes it: strings as they are, other scalars as their JSON.
fn name(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => {
            let mut out = String::new();
            python::number(&mut out, key);
            Ok(out)
        }
        kind => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("tojson: a value of type {kind} is no key"),
        )),
    }
}
