//! `model.safetensors.index.json`: which shard holds which tensor.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::WeightsError;
use crate::files::{join, relative};
use crate::limits::LIMITS;

/// The tensors of every shard, by the shard's path relative to the package.
pub(crate) type Shards = BTreeMap<String, Vec<String>>;

/// Reads the index at `file`, whose shards are relative to `directory`.
pub(crate) fn parse_index(file: &str, directory: &str, text: &str) -> Result<Shards, WeightsError> {
    let invalid = |reason: String| WeightsError::Index { file: file.to_owned(), reason };
    let index: Index = serde_json::from_str(text).map_err(|e| invalid(e.to_string()))?;
    let mut shards = Shards::new();
    for (tensor, shard) in index.weight_map.0 {
        let shard = relative(&shard).map_err(|e| invalid(format!("tensor `{tensor}`: {e}")))?;
        if !has_extension(&shard, "safetensors") {
            return Err(invalid(format!(
                "tensor `{tensor}` is in a file that is not .safetensors: {shard:?}"
            )));
        }
        shards.entry(join(directory, &shard)).or_default().push(tensor);
        if shards.len() > LIMITS.shards {
            return Err(invalid(format!("it names more than {} files", LIMITS.shards)));
        }
    }
    if shards.is_empty() { Err(invalid("its weight_map is empty".to_owned())) } else { Ok(shards) }
}

/// Whether a path ends with `.extension`, in any case.
pub(super) fn has_extension(path: &str, extension: &str) -> bool {
    std::path::Path::new(path).extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Tensor and shard, refused at the first entry too many and at a tensor given twice.
struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WeightMapVisitor).map(Self)
    }
}

struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = Vec<(String, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensor names and file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
            if !seen.insert(tensor.clone()) {
                return Err(A::Error::custom(format_args!("tensor `{tensor}` is there twice")));
            }
            if entries.len() == LIMITS.tensors {
                return Err(A::Error::custom(format_args!("more than {} tensors", LIMITS.tensors)));
            }
            entries.push((tensor, shard));
        }
        Ok(entries)
    }
}
