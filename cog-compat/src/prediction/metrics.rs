//! The metrics of a prediction, and the rules for their names.
use serde_json::{Map, Value};

use super::state::TransitionError;

/// How a new value of a metric is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricMode {
    /// It takes the place of the old one; null deletes it.
    Replace,
    /// It is added to the old one.
    Increment,
    /// It is put at the end of a list.
    Append,
}

/// Why a metric is refused; the words are Cog's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum MetricError {
    #[error("metric name must not be empty")]
    Empty,
    #[error("metric name must be 128 characters or fewer (got {0} characters)")]
    TooLong(usize),
    #[error("metric name must not start with a dot")]
    LeadingDot,
    #[error("metric name must not end with a dot")]
    TrailingDot,
    #[error("metric name must not contain empty segments (consecutive dots)")]
    EmptySegment,
    #[error("metric name must have at most 4 dot-separated segments (got {0})")]
    TooDeep(usize),
    #[error("metric name segment '{0}' must start with a letter")]
    SegmentStart(String),
    #[error("metric name segment '{0}' must end with a letter or digit")]
    SegmentEnd(String),
    #[error("metric name segment '{0}' must not contain consecutive underscores")]
    SegmentUnderscores(String),
    #[error("metric name segment '{0}' must contain only letters, digits, and underscores")]
    SegmentCharacters(String),
    #[error("'predict_time' is reserved by the runtime")]
    PredictTime,
    #[error("the 'cog.' prefix is reserved for system metrics")]
    CogPrefix,
    #[error("metric '{name}' is {was} and cannot become {given}: delete it first")]
    TypeChange { name: String, was: &'static str, given: &'static str },
    #[error(transparent)]
    State(#[from] TransitionError),
}

/// Metrics by name; a dot in a name makes a level.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    values: Map<String, Value>,
}

impl MetricMode {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Increment => "increment",
            Self::Append => "append",
        }
    }
}

impl Metrics {
    /// Changes one metric. The type of a metric stays what it first was.
    pub fn record(
        &mut self,
        name: &str,
        value: Value,
        mode: MetricMode,
    ) -> Result<(), MetricError> {
        check_name(name)?;
        let segments: Vec<&str> = name.split('.').collect();
        let (last, levels) = segments.split_last().ok_or(MetricError::Empty)?;
        if value.is_null() {
            if let Some(level) = find_level(&mut self.values, levels) {
                level.shift_remove(*last);
            }
            return Ok(());
        }
        let level = make_level(&mut self.values, levels, name)?;
        let new = applied(name, level.get(*last), value, mode)?;
        level.insert((*last).to_owned(), new);
        Ok(())
    }

    /// Sets the run time in seconds, which only the runtime may do.
    pub(super) fn set_predict_time(&mut self, seconds: f64) {
        self.values.insert("predict_time".to_owned(), Value::from(seconds));
    }

    /// The value of a metric at the top level.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// All metrics as JSON.
    pub fn to_json(&self) -> Value {
        Value::Object(self.values.clone())
    }
}

fn find_level<'m>(
    values: &'m mut Map<String, Value>,
    levels: &[&str],
) -> Option<&'m mut Map<String, Value>> {
    levels.iter().try_fold(values, |values, level| values.get_mut(*level)?.as_object_mut())
}

fn make_level<'m>(
    values: &'m mut Map<String, Value>,
    levels: &[&str],
    name: &str,
) -> Result<&'m mut Map<String, Value>, MetricError> {
    levels.iter().try_fold(values, |values, level| {
        let entry = values.entry(*level).or_insert_with(|| Value::Object(Map::new()));
        let was = type_name(entry);
        let change = MetricError::TypeChange { name: name.to_owned(), was, given: "a group" };
        entry.as_object_mut().ok_or(change)
    })
}

fn applied(
    name: &str,
    old: Option<&Value>,
    value: Value,
    mode: MetricMode,
) -> Result<Value, MetricError> {
    let change =
        |was| MetricError::TypeChange { name: name.to_owned(), was, given: type_name(&value) };
    match (mode, old) {
        (MetricMode::Replace, Some(old)) if type_name(old) != type_name(&value) => {
            Err(change(type_name(old)))
        }
        (MetricMode::Append, Some(Value::Array(items))) => {
            Ok(Value::Array(items.iter().cloned().chain([value]).collect()))
        }
        (MetricMode::Append, Some(old)) => Err(change(type_name(old))),
        (MetricMode::Append, None) => Ok(Value::Array(vec![value])),
        (MetricMode::Increment, old) => {
            let old = old.cloned().unwrap_or_else(|| Value::from(0));
            sum(&old, &value).ok_or_else(|| change(type_name(&old)))
        }
        (MetricMode::Replace, _) => Ok(value),
    }
}

fn sum(a: &Value, b: &Value) -> Option<Value> {
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
        return Some(Value::from(a.saturating_add(b)));
    }
    Some(Value::from(a.as_f64()? + b.as_f64()?))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a group",
    }
}

fn check_name(name: &str) -> Result<(), MetricError> {
    let length = name.chars().count();
    let segments: Vec<&str> = name.split('.').collect();
    if name.is_empty() {
        Err(MetricError::Empty)
    } else if name == "predict_time" {
        Err(MetricError::PredictTime)
    } else if name.starts_with("cog.") {
        Err(MetricError::CogPrefix)
    } else if length > 128 {
        Err(MetricError::TooLong(length))
    } else if name.starts_with('.') {
        Err(MetricError::LeadingDot)
    } else if name.ends_with('.') {
        Err(MetricError::TrailingDot)
    } else if segments.contains(&"") {
        Err(MetricError::EmptySegment)
    } else if segments.len() > 4 {
        Err(MetricError::TooDeep(segments.len()))
    } else {
        segments.into_iter().try_for_each(check_segment)
    }
}

fn check_segment(segment: &str) -> Result<(), MetricError> {
    let name = || segment.to_owned();
    if !segment.starts_with(|c: char| c.is_ascii_alphabetic()) {
        Err(MetricError::SegmentStart(name()))
    } else if segment.contains("__") {
        Err(MetricError::SegmentUnderscores(name()))
    } else if !segment.ends_with(|c: char| c.is_ascii_alphanumeric()) {
        Err(MetricError::SegmentEnd(name()))
    } else if !segment.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Err(MetricError::SegmentCharacters(name()))
    } else {
        Ok(())
    }
}
