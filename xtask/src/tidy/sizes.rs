//! A file is short enough to be read at once. (Functions: clippy's `too_many_lines`.)

use super::{File, Finding, Tree};

const MAX_LINES: usize = 500;
const EXTENSIONS: &[&str] = &["rs", "cu", "cuh", "py"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let sized = tree.files.iter().filter(|file| EXTENSIONS.contains(&file.extension()));
    let sizes = sized.map(|file| (file, num_lines(file)));
    let large = sizes.filter(|(_, size)| *size > MAX_LINES);
    let finding = |(file, size): (&File, usize)| {
        Finding::new(
            &file.path,
            size,
            format!("{size} non-test lines, at most {MAX_LINES}: split it by subject"),
        )
    };
    large.map(finding).collect()
}

/// Non-test lines of each Rust file that is not a test, smallest first.
pub(super) fn sorted_sizes(tree: &Tree) -> Vec<usize> {
    let mut sizes: Vec<_> =
        tree.with_extension("rs").filter(|file| !file.is_test()).map(num_lines).collect();
    sizes.sort_unstable();
    sizes
}

fn num_lines(file: &File) -> usize {
    if file.is_test() {
        return 0;
    }
    if file.extension() != "rs" {
        return file.text.lines().count();
    }
    non_test_lines(&file.code)
}

/// All lines but those of inline `#[cfg(test)] mod name { … }`.
fn non_test_lines(code: &str) -> usize {
    let mut lines = code.lines().peekable();
    let mut count = 0;
    while let Some(line) = lines.next() {
        let opens_tests = line.trim() == "#[cfg(test)]"
            && lines
                .peek()
                .is_some_and(|next| next.trim_start().starts_with("mod ") && next.contains('{'));
        if !opens_tests {
            count += 1;
            continue;
        }
        let mut depth = 0_usize;
        for line in lines.by_ref() {
            depth = (depth + line.matches('{').count()).saturating_sub(line.matches('}').count());
            if depth == 0 {
                break;
            }
        }
    }
    count
}
