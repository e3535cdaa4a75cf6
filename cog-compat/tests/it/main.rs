//! What Cog promises, checked against what a real Cog said.
#![expect(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "helpers of tests end a test by unwrap, and take json!(…) as it is"
)]
mod golden;
mod hostile;
mod inputs;
mod manifest;
mod prediction;
mod recorded;
mod schema;
mod strict;
mod validate;

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The files of a fixture directory that end so, by name.
fn fixtures(directory: &str, extension: &str) -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(directory);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

/// A recorded case by name.
fn recorded_case(name: &str) -> Value {
    let files = fixtures("cog-http", "json");
    let (_, bytes) = files.iter().find(|(file, _)| file == &format!("{name}.json")).unwrap();
    serde_json::from_slice(bytes).unwrap()
}
