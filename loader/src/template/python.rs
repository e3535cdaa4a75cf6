//! Values as Python's `str()` and `repr()` write them, because templates are tried out with Python.

use std::fmt::{self, Write};

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, Output};

/// Nesting beyond which a value is written as `...`.
const MAX_DEPTH: usize = 64;

/// Writes what `{{ value }}` prints.
pub(super) fn write(output: &mut Output<'_>, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => output.write_str(text)?,
        None if value.is_undefined() => {}
        None => output.write_str(&to_string(value))?,
    }
    Ok(())
}

/// `str(value)`
pub(super) fn to_string(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_undefined() => String::new(),
        None => {
            let mut out = String::new();
            // Writing to a string cannot fail.
            let _ = repr(&mut out, value, 0);
            out
        }
    }
}

/// A number as `repr()` and `json.dumps` write it.
pub(super) fn number(out: &mut String, value: &Value) {
    let float = if value.is_integer() { None } else { f64::try_from(value.clone()).ok() };
    // Writing to a string cannot fail.
    let _ = match float {
        Some(float) => self::float(out, float),
        None => write!(out, "{value}"),
    };
}

fn repr(out: &mut String, value: &Value, depth: usize) -> fmt::Result {
    if depth == MAX_DEPTH {
        return out.write_str("...");
    }
    match value.kind() {
        ValueKind::None => out.write_str("None"),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => {
            number(out, value);
            Ok(())
        }
        ValueKind::String => quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq => {
            let (open, close) = if value.is_tuple() { ("(", ")") } else { ("[", "]") };
            out.write_str(open)?;
            for (at, item) in value.try_iter().into_iter().flatten().enumerate() {
                out.write_str(if at > 0 { ", " } else { "" })?;
                repr(out, &item, depth + 1)?;
            }
            out.write_str(close)
        }
        ValueKind::Map => {
            out.write_char('{')?;
            for (at, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.write_str(if at > 0 { ", " } else { "" })?;
                repr(out, &key, depth + 1)?;
                out.write_str(": ")?;
                repr(out, &value.get_item(&key).unwrap_or_default(), depth + 1)?;
            }
            out.write_char('}')
        }
        _ => write!(out, "{value}"),
    }
}

/// `repr()` of a string: single quotes unless only double ones need no escape.
fn quoted(out: &mut String, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if c.is_control() => write!(out, "\\x{:02x}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char(quote)
}

/// `repr()` of a float: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
fn float(out: &mut String, value: f64) -> fmt::Result {
    if value.is_nan() {
        return out.write_str("NaN");
    }
    if value.is_infinite() {
        return out.write_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return write!(out, "{digits}e{sign}{exponent:0>2}");
    }
    write!(out, "{value:?}")
}
