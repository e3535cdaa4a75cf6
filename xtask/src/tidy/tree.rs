//! The files that the rules look at, read once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::source;

const EXTENSIONS: &[&str] =
    &["rs", "cu", "cuh", "c", "h", "py", "sh", "md", "toml", "yaml", "yml", "lock"];
const NAMES: &[&str] = &["run", "Dockerfile"];
const SKIPPED: &[&str] = &[".git", "target", ".venv", "venv", "node_modules", "__pycache__"];

/// A source tree.
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    /// Sorted by path.
    pub(crate) files: Vec<File>,
    /// Of `cargo metadata`, where the root is a workspace.
    pub(crate) packages: Vec<Value>,
}

/// One text file.
pub(crate) struct File {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Rust only: the text with comments and the insides of literals blanked, line for line.
    pub(crate) code: String,
}

impl Tree {
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let mut waiting = vec![root.to_owned()];
        while let Some(folder) = waiting.pop() {
            let entries =
                folder.read_dir().with_context(|| format!("cannot list: {}", folder.display()))?;
            for entry in entries {
                let entry = entry?;
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    if !SKIPPED.contains(&name.as_str()) && !path.join("CACHEDIR.TAG").exists() {
                        waiting.push(path);
                    }
                } else if kind.is_file() && is_text(&path, &name) {
                    files.push(File::read(root, &path)?);
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let packages = if root.join("Cargo.toml").exists() { packages(root)? } else { Vec::new() };
        Ok(Self { root: root.to_owned(), files, packages })
    }

    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    pub(crate) fn with_extension<'a>(
        &'a self,
        extension: &'a str,
    ) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.extension() == extension)
    }
}

impl File {
    fn read(root: &Path, path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read: {}", path.display()))?;
        let relative = path.strip_prefix(root).context("outside of the root")?;
        let relative = relative.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/");
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        let code = if is_rust { source::code_only(&text) } else { String::new() };
        Ok(Self { path: relative, text, code })
    }

    pub(crate) fn extension(&self) -> &str {
        self.path
            .rsplit('/')
            .next()
            .and_then(|name| name.rsplit_once('.'))
            .map_or("", |(_, extension)| extension)
    }

    /// Whether the whole file is test code.
    pub(crate) fn is_test(&self) -> bool {
        let mut parts = self.path.split('/');
        let name = parts.next_back().unwrap_or_default();
        name == "tests.rs" || name.ends_with("_tests.rs") || parts.any(|part| part == "tests")
    }

    /// Lines of code, numbered from 1.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines())
    }

    /// Lines of text, numbered from 1.
    pub(crate) fn text_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }
}

fn packages(root: &Path) -> Result<Vec<Value>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .output()
        .context("cannot start cargo metadata")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata: {}", complaint.trim());
    let mut metadata: Value = serde_json::from_slice(&output.stdout)?;
    serde_json::from_value(metadata["packages"].take()).context("cargo metadata names no packages")
}

fn is_text(path: &Path, name: &str) -> bool {
    NAMES.contains(&name)
        || path.extension().is_some_and(|e| EXTENSIONS.contains(&e.to_string_lossy().as_ref()))
}
