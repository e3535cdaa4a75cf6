//! Finds the weight files in a directory of a package.

use super::WeightsError;
use super::index::{Shards, has_extension, parse_index};
use crate::files::{PackageFiles, join};
use crate::limits::LIMITS;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const PICKLES: &[&str] = &["bin", "pt", "pth", "ckpt", "pkl"];

/// The files of a checkpoint, relative to the package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// One file.
    Single(String),
    /// Several, and the index that says which tensor is where.
    Sharded {
        /// The index.
        index: String,
        /// The tensors of every shard.
        shards: Shards,
    },
    /// One file that also says what the weights are of.
    Gguf(String),
}

/// Finds the checkpoint in `directory`, empty for the package itself. Reads the index where there is one.
pub fn find(files: &PackageFiles, directory: &str) -> Result<Checkpoint, WeightsError> {
    let names = files.list(directory)?;
    let has = |name: &str| names.iter().any(|n| n == name);
    if has(SINGLE) {
        return Ok(Checkpoint::Single(join(directory, SINGLE)));
    }
    if has(INDEX) {
        let index = join(directory, INDEX);
        // An index has one line a tensor, so it is bounded like the header that names the same tensors.
        if let Some(text) = files.read_text(&index, LIMITS.header_bytes)? {
            let shards = parse_index(&index, directory, &text)?;
            return Ok(Checkpoint::Sharded { index, shards });
        }
    }
    let with = |extension: &str| names.iter().filter(|n| has_extension(n, extension)).collect();
    let place =
        || if directory.is_empty() { "the package".to_owned() } else { format!("`{directory}`") };
    let safetensors: Vec<&String> = with("safetensors");
    match safetensors.as_slice() {
        [one] => return Ok(Checkpoint::Single(join(directory, one))),
        [] => {}
        many => return Err(WeightsError::NoIndex { place: place(), count: many.len() }),
    }
    let ggufs: Vec<&String> = with("gguf");
    match ggufs.as_slice() {
        [one] => return Ok(Checkpoint::Gguf(join(directory, one))),
        [] => {}
        many => return Err(WeightsError::GgufChoice { place: place(), count: many.len() }),
    }
    for extension in PICKLES {
        if let [file, ..] = with(extension).as_slice() {
            return Err(WeightsError::Pickle { file: join(directory, file) });
        }
    }
    Err(WeightsError::Missing { place: place() })
}
