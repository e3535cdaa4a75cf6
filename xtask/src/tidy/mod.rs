//! Rules that the compiler and clippy cannot see, one file each; also a test, so that they always hold.

mod architectures;
mod arrows;
mod confined;
mod documents;
mod headers;
mod manifests;
mod sizes;
mod source;
#[cfg(test)]
mod tests;
mod tree;
mod unfinished;

use std::fmt;

pub(crate) use self::tree::{File, Tree};

type Rule = fn(&Tree) -> Vec<Finding>;

/// Every rule by its name.
const RULES: &[(&str, Rule)] = &[
    ("architectures", architectures::check),
    ("arrows", arrows::check),
    ("confined", confined::check),
    ("documents", documents::check),
    ("headers", headers::check),
    ("manifests", manifests::check),
    ("sizes", sizes::check),
    ("unfinished", unfinished::check),
];

/// One place that breaks a rule.
#[derive(Debug)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Runs every rule over the tree.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, rule) in RULES {
        let named = |f: Finding| Finding { message: format!("[{name}] {}", f.message), ..f };
        findings.extend(rule(tree).into_iter().map(named));
    }
    findings
}

/// One line with what was looked at and how large the files are.
pub(crate) fn summary(tree: &Tree, num_findings: usize) -> String {
    let lines = sizes::sorted_sizes(tree);
    let at =
        |part: usize| lines.get(lines.len().saturating_sub(1) * part / 100).copied().unwrap_or(0);
    format!(
        "tidy: {} rules, {} files, {num_findings} findings; non-test lines a Rust file: p50 {}, p90 {}, max {}\n",
        RULES.len(),
        tree.files.len(),
        at(50),
        at(90),
        at(100),
    )
}
