//! The table of architectures agrees with the files beside it and with README.md.

use super::{Finding, Tree};

const FOLDER: &str = "models/src/arch/";
const TABLE: &str = "models/src/registry.rs";
const ENDINGS: &[&str] = &["ForCausalLM", "LMHeadModel"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(table) = tree.file(TABLE) else { return Vec::new() };
    let mut findings = Vec::new();
    for file in tree.with_extension("rs").filter(|file| !file.is_test()) {
        let Some(path) = file.path.strip_prefix(FOLDER) else { continue };
        let name = path.strip_suffix("/mod.rs").or(path.strip_suffix(".rs")).unwrap_or(path);
        let is_architecture = name != "mod" && !name.contains('/');
        if is_architecture && !table.code.contains(&format!("{name}::")) {
            findings.push(Finding::new(&file.path, 1, format!("no row in {TABLE} builds it")));
        }
    }
    let readme = tree.file("README.md").map_or("", |file| file.text.as_str());
    for (line, text) in table.text_lines() {
        for name in text
            .split('"')
            .skip(1)
            .step_by(2)
            .filter(|name| ENDINGS.iter().any(|e| name.ends_with(e)))
        {
            if !readme.contains(name) {
                findings.push(Finding::new(TABLE, line, format!("README.md does not name {name}")));
            }
        }
    }
    findings
}
