//! Every Rust file begins by saying what it is.

use super::{Finding, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let says_nothing = |text: &str| {
        let first = text.lines().next().unwrap_or_default();
        first.strip_prefix("//! ").is_none_or(|words| words.trim().len() < 4)
    };
    let silent = tree.with_extension("rs").filter(|file| says_nothing(&file.text));
    silent
        .map(|file| {
            Finding::new(&file.path, 1, "the first line is not `//! ` and what the file is")
        })
        .collect()
}
