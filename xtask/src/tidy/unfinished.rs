//! Nothing half done lies in the tree, and no test is switched off or passes by dying.

use super::source::has_word;
use super::{Finding, Tree};

// Written in two parts, so that this file passes its own rule.
const IN_CODE: &[&str] = &[
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
    concat!("#[", "ignore"),
    concat!("#[", "should_panic"),
];
const IN_TEXT: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        for (line, code) in file.code_lines() {
            for word in IN_CODE.iter().filter(|word| code.contains(**word)) {
                findings.push(Finding::new(&file.path, line, format!("unfinished: {word}")));
            }
        }
        for (line, text) in file.text_lines() {
            for word in IN_TEXT.iter().filter(|word| has_word(text, word)) {
                findings.push(Finding::new(&file.path, line, format!("unfinished: {word}")));
            }
        }
    }
    findings
}
