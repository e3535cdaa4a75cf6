//! Reads the fields of a JSON object, and says of a wrong one where it is and what is right.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::ApiError;

/// Characters of a wrong value that an error shows.
const EXCERPT_CHARS: usize = 60;

/// An object and where it is in the request. Fields that are null count as absent.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    /// The fields of the request's body.
    pub(crate) fn of_body(map: &'a Map<String, Value>) -> Self {
        Self { map, path: String::new() }
    }

    /// The fields of an object further down.
    pub(crate) fn of(value: &'a Value, path: impl Into<String>) -> Result<Self, ApiError> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            _ => Err(wrong(&path, "an object", value)),
        }
    }

    /// Where a field is in the request.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The object itself.
    pub(crate) fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// A field of any type.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// An error about a field of any type.
    pub(crate) fn wrong(&self, name: &str, expected: &str) -> ApiError {
        wrong(&self.path(name), expected, self.map.get(name).unwrap_or(&Value::Null))
    }

    /// An error about a field that must be there.
    pub(crate) fn missing(&self, name: &str) -> ApiError {
        let path = self.path(name);
        ApiError::invalid("missing_required_parameter", format!("`{path}` is missing")).at(path)
    }

    /// A field that is true or false; false if absent.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.boolean(name)?.unwrap_or(false))
    }

    /// A field that is true or false.
    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "true or false", Value::as_bool)
    }

    /// A string.
    pub(crate) fn string(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.read(name, "a string", Value::as_str)
    }

    /// An array.
    pub(crate) fn array(&self, name: &str) -> Result<Option<&'a [Value]>, ApiError> {
        self.read(name, "an array", |value| value.as_array().map(Vec::as_slice))
    }

    /// An object.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Self>, ApiError> {
        self.get(name).map(|value| Self::of(value, self.path(name))).transpose()
    }

    /// A number within a range.
    pub(crate) fn number(
        &self,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f32>, ApiError> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let read = |value: &Value| value.as_f64().filter(|number| range.contains(number));
        Ok(self.read(name, &expected, read)?.map(|number| number as f32))
    }

    /// A whole number within a range.
    pub(crate) fn integer(
        &self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, ApiError> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(name, &expected, |value| whole(value).filter(|number| range.contains(number)))
    }

    /// A whole number within a range of counts.
    pub(crate) fn count(
        &self,
        name: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, ApiError> {
        let range = i64::from(*range.start())..=i64::from(*range.end());
        let number = self.integer(name, range)?;
        Ok(number.and_then(|number| u32::try_from(number).ok()))
    }

    /// Token ids.
    pub(crate) fn token_ids(&self, name: &str) -> Result<Option<Vec<u32>>, ApiError> {
        let path = self.path(name);
        self.array(name)?.map(|values| token_ids(values, &path)).transpose()
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(self.wrong(name, expected)),
        }
    }
}

/// An error about the value at `path`.
pub(crate) fn wrong(path: &str, expected: &str, value: &Value) -> ApiError {
    let message = format!("`{path}` must be {expected}: {}", excerpt(value));
    ApiError::invalid("invalid_value", message).at(path)
}

/// The token ids in the array at `path`.
pub(crate) fn token_ids(values: &[Value], path: &str) -> Result<Vec<u32>, ApiError> {
    let read = |(index, value)| {
        let id = whole(value).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| wrong(&format!("{path}[{index}]"), "a token id", value))
    };
    values.iter().enumerate().map(read).collect()
}

/// Clients of languages without integers write 16.0.
fn whole(value: &Value) -> Option<i64> {
    let exact = |number: &f64| number.fract() == 0.0 && number.abs() < 9e15;
    value.as_i64().or_else(|| value.as_f64().filter(exact).map(|number| number as i64))
}

fn excerpt(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
