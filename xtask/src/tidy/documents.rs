//! What the documents say is there: files, links, README's two commands; and they name no path of anyone's machine.

use super::{File, Finding, Tree};

const MAX_ARCHITECTURE_LINES: usize = 150;
/// README's first two commands; `.ci/run` runs the same.
const COMMANDS: &[&str] = &["cargo run --release -- demo", "cargo test --workspace"];
/// Folders of one machine. In two parts, so that this file passes its own rule.
const PRIVATE: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Use", "rs/")];
/// Beginnings that make a word in backticks a path of the tree.
const FOLDERS: &[&str] = &[
    "server/",
    "engine/",
    "models/",
    "kernels/",
    "loader/",
    "cog-compat/",
    "benches/",
    "xtask/",
    "tests/",
    ".ci/",
    ".config/",
    ".cargo/",
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<_> =
        tree.with_extension("md").flat_map(|file| check_document(tree, file)).collect();
    findings.extend(private_paths_in_code(tree));
    if let Some(file) = tree.file("ARCHITECTURE.md") {
        let num_lines = file.text.lines().count();
        if num_lines > MAX_ARCHITECTURE_LINES {
            let message = format!(
                "{num_lines} lines, at most {MAX_ARCHITECTURE_LINES}: it is a map, not the country"
            );
            findings.push(Finding::new(&file.path, num_lines, message));
        }
    }
    findings.extend(missing_commands(tree));
    findings
}

fn check_document(tree: &Tree, file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_history = file.path.ends_with("CHANGELOG.md");
    for (line, text) in file.text_lines() {
        for folder in PRIVATE.iter().filter(|folder| names_path(text, folder)) {
            findings.push(Finding::new(
                &file.path,
                line,
                format!("a path of one machine: {folder}"),
            ));
        }
        if is_history {
            continue;
        }
        for path in named_paths(text).filter(|path| !tree.root.join(path).exists()) {
            findings.push(Finding::new(
                &file.path,
                line,
                format!("names a file that is not there: {path}"),
            ));
        }
        let folder = tree.root.join(&file.path);
        let folder = folder.parent().unwrap_or(&tree.root);
        for target in link_targets(text).filter(|target| !folder.join(target).exists()) {
            findings.push(Finding::new(&file.path, line, format!("a link to nothing: {target}")));
        }
    }
    findings
}

/// In code only the first folder of the list: the others occur in honest tests of path handling.
fn private_paths_in_code(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.extension() != "md") {
        for (line, _) in file.text_lines().filter(|(_, text)| names_path(text, PRIVATE[0])) {
            findings.push(Finding::new(
                &file.path,
                line,
                format!("a path of one machine: {}", PRIVATE[0]),
            ));
        }
    }
    findings
}

/// Whether an absolute path begins with `folder`; a part of a URL or of a longer path does not count.
fn names_path(text: &str, folder: &str) -> bool {
    text.match_indices(folder).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-~*})>$".contains(c))
    })
}

/// Words in backticks that look like a file or folder of the tree.
fn named_paths(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|word| {
        let is_plain = word.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
        is_plain && FOLDERS.iter().any(|folder| word.starts_with(folder))
    })
}

fn link_targets(text: &str) -> impl Iterator<Item = &str> {
    let rests = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = rests.filter(|target| {
        !target.contains("://") && !target.starts_with(['#', '<']) && !target.contains(' ')
    });
    files.filter_map(|target| target.split('#').next()).filter(|target| !target.is_empty())
}

fn missing_commands(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let commands_of = |text: &str| -> Vec<String> {
        let block = text.split("```").nth(1).unwrap_or_default();
        let lines = block
            .lines()
            .skip(1)
            .map(|line| line.split('#').next().unwrap_or_default().trim().to_owned());
        lines.filter(|line| !line.is_empty()).collect()
    };
    if let Some(readme) = tree.file("README.md")
        && commands_of(&readme.text) != COMMANDS
    {
        findings.push(Finding::new(
            "README.md",
            1,
            format!("the first code block is not: {}", COMMANDS.join("; ")),
        ));
    }
    if let Some(ci) = tree.file(".ci/run") {
        for command in COMMANDS.iter().filter(|command| !ci.text.contains(**command)) {
            findings.push(Finding::new(
                ".ci/run",
                1,
                format!("does not run README's command: {command}"),
            ));
        }
    }
    findings
}
