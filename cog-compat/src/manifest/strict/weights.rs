//! The rules about `weights:`.
use super::super::read::MAX_ITEMS;
use super::super::weights::{check_target, is_weight_name, overlap, pattern_fault};
use super::{Strict, find};
use crate::yaml::{Node, Value};

impl Strict<'_> {
    pub(super) fn weights(&mut self) {
        let Some(Node { value: Value::Seq(items), .. }) = find(self.root, "weights") else {
            return;
        };
        let items = items.clone();
        if items.len() > MAX_ITEMS {
            return self
                .error("weights", format!("too many: {}, at most {MAX_ITEMS}", items.len()));
        }
        if !items.is_empty() && self.manifest.model.as_deref().is_none_or(str::is_empty) {
            self.error(
                "weights",
                "weights require a model: add `model:` with a repository".to_owned(),
            );
        }
        let mut earlier: Vec<(String, String)> = Vec::new();
        for index in 0..items.len() {
            let path = format!("weights[{index}]");
            let name = self.text(&format!("{path}.name"));
            let target = self.text(&format!("{path}.target"));
            self.name(&path, name.as_deref(), &earlier);
            self.target(&path, target.as_deref(), &earlier);
            self.sources(&path);
            earlier.push((name.unwrap_or_default(), target.unwrap_or_default()));
        }
    }

    fn text(&self, path: &str) -> Option<String> {
        match &find(self.root, path)?.value {
            Value::Scalar(scalar) => Some(scalar.text.to_string()),
            _ => None,
        }
    }

    fn name(&mut self, path: &str, name: Option<&str>, earlier: &[(String, String)]) {
        let field = format!("{path}.name");
        let Some(name) = name else { return self.schema(path, "name is required") };
        if !is_weight_name(name) {
            self.schema(&field, "Does not match pattern '^[a-z0-9]+([._-][a-z0-9]+)*$'");
            let message = "must contain only lowercase alphanumeric characters, hyphens, dots, or underscores \
                           (e.g. \"my-model-weights\")";
            self.invalid(&field, name, message);
        }
        if earlier.iter().any(|(other, _)| other == name) {
            self.invalid(&field, name, "duplicate weight name");
        }
    }

    fn target(&mut self, path: &str, target: Option<&str>, earlier: &[(String, String)]) {
        let field = format!("{path}.target");
        let Some(target) = target else { return self.schema(path, "target is required") };
        if let Err(message) = check_target(target) {
            self.invalid(&field, target, message);
        } else if let Some((_, other)) =
            earlier.iter().find(|(_, other)| check_target(other).is_ok() && overlap(other, target))
        {
            self.invalid(&field, target, &format!("overlaps with target \"{other}\""));
        }
    }

    fn sources(&mut self, path: &str) {
        let field = format!("{path}.source");
        match find(self.root, &field).map(|node| node.value.clone()) {
            None | Some(Value::Null) => self.schema(path, "source is required"),
            Some(Value::Seq(items)) if items.is_empty() => {
                self.schema(&field, "Array must have at least 1 items");
            }
            Some(Value::Seq(items)) => {
                (0..items.len()).for_each(|index| self.patterns(&format!("{field}[{index}]")));
            }
            Some(_) => self.patterns(&field),
        }
    }

    fn patterns(&mut self, source: &str) {
        for list in ["include", "exclude"] {
            let mut index = 0;
            while let Some(pattern) = self.text(&format!("{source}.{list}[{index}]")) {
                if let Some(message) = pattern_fault(&pattern) {
                    self.invalid(&format!("{source}.{list}[{index}]"), &pattern, message);
                }
                index += 1;
            }
        }
    }
}
