//! Dependencies stand in one table, lints hold everywhere, and a C compiler is all that a build needs.

use super::{File, Finding, Tree};

/// Crates that need a system library, `CMake` or a C++ compiler; pinion has other ways (rustls with ring, fancy-regex).
const NEED_SYSTEM: &[&str] =
    &["openssl-sys", "native-tls", "aws-lc-sys", "onig_sys", "bindgen", "cmake"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let members = tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    let mut findings: Vec<_> = members.flat_map(check_member).collect();
    if let Some(lock) = tree.file("Cargo.lock") {
        findings.extend(check_lock(lock));
    }
    findings
}

fn check_member(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = "";
    let mut inherits_lints = false;
    for (line, text) in file.text_lines() {
        let text = text.trim();
        if let Some(name) = text.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if section == "lints" && text == "workspace = true" {
            inherits_lints = true;
        } else if section.ends_with("dependencies") && text.contains('=') && !text.starts_with('#')
        {
            let inherited = text.contains("workspace = true")
                && !text.contains("version")
                && !text.contains("git =");
            if !inherited {
                findings.push(Finding::new(
                    &file.path,
                    line,
                    format!("not from the workspace table: {text}"),
                ));
            }
        }
    }
    if !inherits_lints {
        findings.push(Finding::new(&file.path, 1, "lacks [lints] workspace = true"));
    }
    findings
}

fn check_lock(lock: &File) -> Vec<Finding> {
    let named = lock
        .text_lines()
        .filter_map(|(line, text)| Some((line, text.strip_prefix("name = ")?.trim_matches('"'))));
    let needing = named.filter(|(_, name)| NEED_SYSTEM.contains(name));
    needing
        .map(|(line, name)| {
            Finding::new(&lock.path, line, format!("needs more than a C compiler: {name}"))
        })
        .collect()
}
