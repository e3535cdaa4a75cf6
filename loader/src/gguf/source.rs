//! Tensors of a GGUF file, under the names of a checkpoint.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Error, Result, Tensor};
use parking_lot::Mutex;
use pinion_kernels::{PackedTensor, WeightType};
use pinion_models::TensorSource;

use super::config::interleaved_heads;
use super::header::{Entry, Gguf};
use super::names::gguf_name;
use crate::progress::{Progress, ProgressFn};
use crate::source::{CheckpointSource, WeightsError};

/// An open GGUF file as a checkpoint. `load` reads one tensor.
pub struct GgufSource {
    gguf: Arc<Gguf>,
    /// Query and key heads whose rows are stored interleaved.
    interleaved: Option<(usize, usize)>,
    total_bytes: u64,
    loaded_bytes: AtomicU64,
    /// What was given out last, and may still be read.
    in_use: Mutex<VecDeque<Range<usize>>>,
    progress: ProgressFn,
}

/// Tensors that are packed together, at most.
const MAX_IN_USE: usize = 3;

impl GgufSource {
    /// The tensors of a file that was opened.
    pub fn new(gguf: Arc<Gguf>, progress: ProgressFn) -> std::result::Result<Self, WeightsError> {
        let interleaved = interleaved_heads(&gguf)?;
        let total_bytes = gguf.tensors.values().map(|entry| (entry.end - entry.begin) as u64).sum();
        let (loaded_bytes, in_use) = (AtomicU64::new(0), Mutex::default());
        Ok(Self { gguf, interleaved, total_bytes, loaded_bytes, in_use, progress })
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.gguf.tensors.get(&gguf_name(name)?)
    }

    /// The bytes of a tensor, its rows in the order of a checkpoint.
    fn bytes(&self, name: &str, entry: &Entry) -> Cow<'_, [u8]> {
        let bytes = &self.gguf.bytes[entry.begin..entry.end];
        let heads = self.interleaved.and_then(|(heads, kv_heads)| {
            if name.contains(".q_proj.") {
                Some(heads)
            } else if name.contains(".k_proj.") {
                Some(kv_heads)
            } else {
                None
            }
        });
        let halves = |heads: usize| split_halves(bytes, entry.shape[0], heads);
        heads.and_then(halves).map_or(Cow::Borrowed(bytes), Cow::Owned)
    }

    /// Counts a tensor as read, and gives back the memory of one that was read before.
    fn count(&self, entry: &Entry) {
        let mut in_use = self.in_use.lock();
        in_use.push_back(entry.begin..entry.end);
        if MAX_IN_USE < in_use.len() {
            let done = in_use.pop_front().expect("it is not empty");
            self.gguf.bytes.release(done);
        }
        drop(in_use);
        let size = (entry.end - entry.begin) as u64;
        let done = self.loaded_bytes.fetch_add(size, Ordering::Relaxed) + size;
        let total = self.total_bytes;
        (self.progress)(Progress::Weights { done: done.min(total), total });
    }

    fn refuse(&self, name: &str, entry: &Entry) -> WeightsError {
        WeightsError::GgufType {
            tensor: name.to_owned(),
            file: self.gguf.path.clone(),
            kind: entry.kind.name().to_owned(),
        }
    }
}

/// Puts the even rows of every head before its odd ones, which is how transformers rotates them. None where the rows
/// are no heads of even height: the shape is then refused later.
fn split_halves(bytes: &[u8], rows: usize, heads: usize) -> Option<Vec<u8>> {
    let (head, row_bytes) = (rows.checked_div(heads)?, bytes.len().checked_div(rows)?);
    if heads * head != rows || !head.is_multiple_of(2) || row_bytes == 0 {
        return None;
    }
    let mut sorted = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact(head * row_bytes) {
        for first in [0, 1] {
            let rows = head.chunks_exact(row_bytes).skip(first).step_by(2);
            rows.for_each(|row| sorted.extend_from_slice(row));
        }
    }
    Some(sorted)
}

/// The type of a tensor that is no blocks.
fn float_type(kind: &str) -> Option<DType> {
    match kind {
        "F32" => Some(DType::F32),
        "F16" => Some(DType::F16),
        "BF16" => Some(DType::BF16),
        _ => None,
    }
}

impl TensorSource for GgufSource {
    fn load(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        let bytes = self.bytes(name, entry);
        let shape = entry.shape.as_slice();
        let tensor = match (float_type(entry.kind.name()), entry.kind.blocks()) {
            (Some(dtype), _) => Tensor::from_raw_buffer(&bytes, dtype, shape, &Device::Cpu)?,
            (None, Some(kind)) => {
                let cols = shape.last().copied().unwrap_or_default();
                PackedTensor::from_ggml(kind, cols, &[&bytes])?.unpack()?.reshape(shape)?
            }
            (None, None) => return Err(Error::wrap(self.refuse(name, entry))),
        };
        self.count(entry);
        Ok(Some(tensor))
    }

    fn block_type(&self, name: &str) -> Option<WeightType> {
        self.entry(name).filter(|entry| entry.shape.len() == 2)?.kind.blocks()
    }

    fn blocks(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        self.count(entry);
        Ok(Some(self.bytes(name, entry)))
    }
}

impl CheckpointSource for GgufSource {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entry(name).map(|entry| entry.shape.as_slice())
    }

    fn check_dtype(&self, name: &str) -> std::result::Result<(), WeightsError> {
        match self.entry(name) {
            Some(entry) => {
                let kind = entry.kind;
                let known = float_type(kind.name()).is_some() || kind.blocks().is_some();
                if known { Ok(()) } else { Err(self.refuse(name, entry)) }
            }
            None => Ok(()),
        }
    }

    fn own_type(&self) -> String {
        let mut bytes_of = HashMap::new();
        for entry in self.gguf.tensors.values().filter(|entry| entry.shape.len() == 2) {
            *bytes_of.entry(entry.kind.name()).or_insert(0) += entry.end - entry.begin;
        }
        let most = bytes_of.into_iter().max_by_key(|&(name, bytes)| (bytes, name));
        match most.map(|(name, _)| name) {
            // Held exactly in f32.
            None | Some("F16") => "f32".to_owned(),
            Some(name) => name.to_lowercase(),
        }
    }
}

impl fmt::Debug for GgufSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GgufSource")
            .field("gguf", &self.gguf)
            .field("total_bytes", &self.total_bytes)
            .finish_non_exhaustive()
    }
}
