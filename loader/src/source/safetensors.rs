//! Tensors of a safetensors checkpoint, single or sharded, straight from mapped files.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Error, Result, Tensor};
use pinion_kernels::WeightType;
use pinion_models::TensorSource;

use super::header::{Entry, parse_header};
use super::{Checkpoint, CheckpointSource, WeightsError};
use crate::files::{FileBytes, PackageFiles};
use crate::limits::LIMITS;
use crate::progress::{Progress, ProgressFn};

/// An open checkpoint. Opening reads headers only; `load` reads one tensor.
pub struct SafetensorsSource {
    files: Vec<ShardFile>,
    tensors: HashMap<String, (usize, Entry)>,
    total_bytes: u64,
    loaded_bytes: AtomicU64,
    progress: ProgressFn,
}

struct ShardFile {
    path: String,
    bytes: FileBytes,
}

impl SafetensorsSource {
    /// Opens every file of the checkpoint and checks its header against its size.
    pub fn open(
        files: &PackageFiles,
        checkpoint: &Checkpoint,
        progress: ProgressFn,
    ) -> std::result::Result<Self, WeightsError> {
        let mut source = Self {
            files: Vec::new(),
            tensors: HashMap::new(),
            total_bytes: 0,
            loaded_bytes: AtomicU64::new(0),
            progress,
        };
        match checkpoint {
            Checkpoint::Gguf(path) => {
                let reason = "it is no safetensors file".to_owned();
                return Err(WeightsError::Header { file: path.clone(), reason });
            }
            Checkpoint::Single(path) => {
                let bytes = files.open(path)?;
                let place = path.clone();
                let bytes = bytes.ok_or(WeightsError::Missing { place })?;
                source.add(path, bytes, None)?;
            }
            Checkpoint::Sharded { index, shards } => {
                for (path, tensors) in shards {
                    let bytes = files.open(path)?.ok_or_else(|| WeightsError::ShardMissing {
                        file: path.clone(),
                        index: index.clone(),
                        tensor: tensors.first().cloned().unwrap_or_default(),
                    })?;
                    source.add(path, bytes, Some(tensors))?;
                }
            }
        }
        Ok(source)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Elements of all tensors.
    pub fn num_parameters(&self) -> u64 {
        self.tensors.values().map(|(_, e)| e.shape.iter().map(|&d| d as u64).product::<u64>()).sum()
    }

    /// Bytes of all tensors.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Adds a file's tensors: all of them, or those that the index puts there.
    fn add(
        &mut self,
        path: &str,
        bytes: FileBytes,
        wanted: Option<&[String]>,
    ) -> std::result::Result<(), WeightsError> {
        let mut header = parse_header(path, &bytes)?;
        let at = self.files.len();
        self.files.push(ShardFile { path: path.to_owned(), bytes });
        let Some(wanted) = wanted else {
            self.extend(header.into_iter().map(|(name, entry)| (name, (at, entry))));
            return Ok(());
        };
        for tensor in wanted {
            let entry = header.remove(tensor).ok_or_else(|| WeightsError::NotInShard {
                tensor: tensor.clone(),
                file: path.to_owned(),
            })?;
            self.extend([(tensor.clone(), (at, entry))]);
        }
        debug_assert!(self.tensors.len() <= LIMITS.tensors, "the index is bounded");
        Ok(())
    }

    fn extend(&mut self, entries: impl IntoIterator<Item = (String, (usize, Entry))>) {
        for (name, (file, entry)) in entries {
            self.total_bytes += (entry.end - entry.begin) as u64;
            self.tensors.insert(name, (file, entry));
        }
    }
}

fn refuse_dtype(name: &str, entry: &Entry, file: &ShardFile) -> WeightsError {
    WeightsError::Dtype {
        tensor: name.to_owned(),
        file: file.path.clone(),
        dtype: entry.dtype.clone(),
    }
}

/// The types that models read.
fn float_type(dtype: &str) -> Option<DType> {
    match dtype {
        "F32" => Some(DType::F32),
        "BF16" => Some(DType::BF16),
        "F16" => Some(DType::F16),
        _ => None,
    }
}

impl TensorSource for SafetensorsSource {
    fn load(&self, name: &str) -> Result<Option<Tensor>> {
        let Some((file, entry)) = self.tensors.get(name) else { return Ok(None) };
        let file = &self.files[*file];
        let bytes = || (entry.dtype == "U8").then_some(DType::U8);
        let Some(dtype) = float_type(&entry.dtype).or_else(bytes) else {
            return Err(Error::wrap(refuse_dtype(name, entry, file)));
        };
        let data = &file.bytes[entry.begin..entry.end];
        let tensor = Tensor::from_raw_buffer(data, dtype, &entry.shape, &Device::Cpu)?;
        let size = data.len() as u64;
        file.bytes.release(entry.begin..entry.end);
        let done = self.loaded_bytes.fetch_add(size, Ordering::Relaxed) + size;
        let total = self.total_bytes;
        (self.progress)(Progress::Weights { done: done.min(total), total });
        Ok(Some(tensor))
    }
}

impl CheckpointSource for SafetensorsSource {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(_, entry)| entry.shape.as_slice())
    }

    fn check_dtype(&self, name: &str) -> std::result::Result<(), WeightsError> {
        match self.tensors.get(name) {
            Some((file, entry)) if float_type(&entry.dtype).is_none() => {
                Err(refuse_dtype(name, entry, &self.files[*file]))
            }
            _ => Ok(()),
        }
    }

    /// bf16 if all matrices are stored so, else f32.
    fn own_type(&self) -> String {
        let mut matrices = self.tensors.values().filter(|(_, entry)| entry.shape.len() == 2);
        let bf16 = matrices.all(|(_, entry)| entry.dtype == "BF16");
        if bf16 { WeightType::Bf16 } else { WeightType::F32 }.to_string()
    }
}

impl fmt::Debug for SafetensorsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SafetensorsSource")
            .field("files", &self.files.iter().map(|f| &f.path).collect::<Vec<_>>())
            .field("tensors", &self.tensors.len())
            .field("total_bytes", &self.total_bytes)
            .finish_non_exhaustive()
    }
}
