//! Metadata of a GGUF file: keys and values, read by type.

use std::collections::HashMap;

use super::value::{List, Texts, Value};
use crate::source::WeightsError;

/// Keys and values, and the file for messages.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    file: String,
    values: HashMap<String, Value>,
}

impl Metadata {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), values: HashMap::new() }
    }

    /// Adds a key; false if it is there already.
    pub(super) fn insert(&mut self, key: &str, value: Value) -> bool {
        self.values.insert(key.to_owned(), value).is_none()
    }

    #[cfg(test)]
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// A number that is not negative. A list of the same number for every layer counts as that number.
    pub(super) fn uint(&self, key: &str) -> Result<Option<u64>, WeightsError> {
        self.read(key, "a number", |value| match value {
            Value::Uint(value) => Some(*value),
            Value::Int(value) => u64::try_from(*value).ok(),
            Value::List(List::Uints(list)) => one_of(list).copied(),
            Value::List(List::Ints(list)) => u64::try_from(*one_of(list)?).ok(),
            _ => None,
        })
    }

    pub(super) fn float(&self, key: &str) -> Result<Option<f64>, WeightsError> {
        self.read(key, "a number", |value| match value {
            Value::Float(value) => Some(*value),
            Value::Uint(value) => Some(*value as f64),
            Value::Int(value) => Some(*value as f64),
            _ => None,
        })
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>, WeightsError> {
        self.read(key, "a bool", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, WeightsError> {
        self.read(key, "a text", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<&Texts>, WeightsError> {
        self.read(key, "a list of texts", |value| match value {
            Value::List(List::Texts(texts)) => Some(texts),
            _ => None,
        })
    }

    pub(super) fn floats(&self, key: &str) -> Result<Option<&[f64]>, WeightsError> {
        self.read(key, "a list of numbers with fractions", |value| match value {
            Value::List(List::Floats(list)) => Some(list.as_slice()),
            _ => None,
        })
    }

    /// A list of small whole numbers.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<i64>>, WeightsError> {
        self.read(key, "a list of whole numbers", |value| match value {
            Value::List(List::Ints(list)) => Some(list.clone()),
            Value::List(List::Uints(list)) => {
                list.iter().map(|&number| i64::try_from(number).ok()).collect()
            }
            _ => None,
        })
    }

    /// The same, of a key that must be there.
    pub(super) fn required<'a, T>(
        &'a self,
        key: &str,
        read: impl FnOnce(&'a Self, &str) -> Result<Option<T>, WeightsError>,
    ) -> Result<T, WeightsError> {
        read(self, key)?.ok_or_else(|| WeightsError::GgufKey {
            file: self.file.clone(),
            key: key.to_owned(),
            problem: "is missing".to_owned(),
        })
    }

    /// What is wrong with the value of a key.
    pub(super) fn wrong(&self, key: &str, problem: impl Into<String>) -> WeightsError {
        WeightsError::GgufKey {
            file: self.file.clone(),
            key: key.to_owned(),
            problem: problem.into(),
        }
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, WeightsError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(key, format!("is not {expected}")))
    }
}

/// The value of a list of which all elements are equal.
fn one_of<T: PartialEq>(list: &[T]) -> Option<&T> {
    let first = list.first()?;
    list.iter().all(|value| value == first).then_some(first)
}
