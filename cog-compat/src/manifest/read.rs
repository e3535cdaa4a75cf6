//! Typed reading of the YAML tree: every fault is noted with its place, and reading goes on.
use std::rc::Rc;

use crate::diagnostic::{Diagnostic, Mark};
use crate::yaml::{Entry, Node, Scalar, Value};

/// The most weights, adapters or names of an input.
pub(super) const MAX_ITEMS: usize = 256;

/// Collects what is found while a file is read.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) all: Vec<Diagnostic>,
    /// Those of `all` that are about the type of a value; Cog's own parser has them too.
    pub(super) types: Vec<Diagnostic>,
}

/// A mapping whose keys are taken one by one; what is left at the end is unknown.
pub(super) struct Fields {
    pub(super) mark: Mark,
    path: String,
    entries: Rc<[Entry]>,
    known: Vec<&'static str>,
}

/// A value with the path that names it.
pub(super) struct Field<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
}

impl Findings {
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.all.push(diagnostic);
    }

    /// `path must be WANTED, not KIND`, at the value.
    pub(super) fn wrong_type(&mut self, field: &Field<'_>, wanted: &str) {
        let message = format!("must be {wanted}, not {}", field.node.kind());
        let fault = Diagnostic::error(field.node.mark, &field.path, message);
        self.types.push(fault.clone());
        self.push(fault);
    }

    /// An error at the value of a field.
    pub(super) fn invalid(&mut self, field: &Field<'_>, message: impl Into<String>) {
        self.push(Diagnostic::error(field.node.mark, &field.path, message));
    }

    /// Notes `name` as not one of `valid`, with the whole list and the nearest.
    pub(super) fn not_one_of(&mut self, field: &Field<'_>, given: &str, valid: &[&str]) {
        let list = valid.join(", ");
        let hint = match nearest(given, valid) {
            Some(near) => format!("did you mean `{near}`? valid values: {list}"),
            None => format!("valid values: {list}"),
        };
        self.push(
            Diagnostic::error(field.node.mark, &field.path, format!("unknown value: {given}"))
                .hint(hint),
        );
    }
}

impl Fields {
    /// The keys of a mapping. Nothing (null) is a mapping without keys, as for go-yaml.
    pub(super) fn of(field: &Field<'_>, out: &mut Findings) -> Option<Self> {
        let entries: Rc<[Entry]> = match &field.node.value {
            Value::Map(entries) => Rc::clone(entries),
            Value::Null => Rc::from([]),
            _ => {
                out.wrong_type(field, "a mapping");
                return None;
            }
        };
        Some(Self { mark: field.node.mark, path: field.path.clone(), entries, known: Vec::new() })
    }

    /// The value of a key that is given and not null.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Field<'_>> {
        self.known.push(name);
        let entry = self.entries.iter().find(|entry| &*entry.key == name)?;
        let path = self.path_of(name);
        (!matches!(entry.value.value, Value::Null)).then_some(Field { node: &entry.value, path })
    }

    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The keys that nothing has taken.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !self.known.contains(&&*entry.key))
    }

    /// The known key that an unknown one probably stands for.
    pub(super) fn meant(&self, key: &str) -> Option<&'static str> {
        nearest(key, &self.known)
    }

    /// The keys that were asked for.
    pub(super) fn known(&self) -> &[&'static str] {
        &self.known
    }

    /// Every entry, for mappings whose keys are data.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Entry, Field<'_>)> {
        self.entries
            .iter()
            .map(|entry| (entry, Field { node: &entry.value, path: self.path_of(&entry.key) }))
    }
}

impl<'n> Field<'n> {
    pub(super) fn scalar(&self) -> Option<&'n Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// Any scalar as its text: `3.10` stays `3.10`.
    pub(super) fn text(&self, out: &mut Findings) -> Option<String> {
        let text = self.scalar().map(|scalar| scalar.text.to_string());
        if text.is_none() {
            out.wrong_type(self, "a string");
        }
        text
    }

    pub(super) fn boolean(&self, out: &mut Findings) -> Option<bool> {
        let value = self.scalar().and_then(Scalar::boolean);
        if value.is_none() {
            out.wrong_type(self, "true or false");
        }
        value
    }

    /// An integer of at least `min`.
    pub(super) fn count(&self, min: u32, out: &mut Findings) -> Option<u32> {
        let Some(value) = self.scalar().and_then(Scalar::integer) else {
            out.wrong_type(self, "an integer");
            return None;
        };
        let value = u32::try_from(value).ok().filter(|value| *value >= min);
        if value.is_none() {
            out.invalid(self, format!("must be from {min} to {}", u32::MAX));
        }
        value
    }

    /// The items of a list, each with its own path.
    pub(super) fn items(&self, out: &mut Findings) -> Option<Vec<Field<'n>>> {
        let Value::Seq(items) = &self.node.value else {
            out.wrong_type(self, "a list");
            return None;
        };
        let item = |(index, node)| Field { node, path: format!("{}[{index}]", self.path) };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The items of a list of named things, of which a person writes few.
    pub(super) fn few_items(&self, out: &mut Findings) -> Vec<Field<'n>> {
        let items = self.items(out).unwrap_or_default();
        if items.len() > MAX_ITEMS {
            out.invalid(self, format!("too many: {}, at most {MAX_ITEMS}", items.len()));
            return Vec::new();
        }
        items
    }

    /// A list of scalars as texts.
    pub(super) fn texts(&self, out: &mut Findings) -> Vec<String> {
        let Some(items) = self.items(out) else { return Vec::new() };
        items.iter().filter_map(|item| item.text(out)).collect()
    }

    /// A list of scalars, or one scalar, as texts.
    pub(super) fn one_or_few_texts(&self, out: &mut Findings) -> Vec<String> {
        if self.scalar().is_some() {
            return self.text(out).into_iter().collect();
        }
        self.few_items(out).iter().filter_map(|item| item.text(out)).collect()
    }
}

/// The candidate that `given` is a slip of the finger away from.
pub(super) fn nearest<'c>(given: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let given = given.to_lowercase().replace('-', "_");
    let limit = (given.chars().count() / 3).clamp(1, 3);
    let distance = |candidate: &&str| edit_distance(&given, &candidate.to_lowercase(), limit);
    let near = candidates
        .iter()
        .filter(|candidate| candidate.len() > 2)
        .filter_map(|candidate| Some((distance(candidate)?, *candidate)));
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// Insertions, deletions, substitutions and swaps of neighbours between two words, if at most `limit`.
fn edit_distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.chars().take(64).collect(), b.chars().take(64).collect());
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substitute = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substitute.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    Some(rows[a.len()][b.len()]).filter(|distance| *distance <= limit)
}
