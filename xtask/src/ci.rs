//! `cargo xtask ci`: the list that CI runs is `.ci/run`; this runs the same file.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    let script = root.join(".ci/run");
    let status = Command::new("bash")
        .arg(&script)
        .current_dir(root)
        .status()
        .with_context(|| format!("cannot start bash for: {}", script.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
