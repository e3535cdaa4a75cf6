//! The two sources of snapshots: one that keeps what a model derives, and one that answers from an image.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use parking_lot::Mutex;
use pinion_kernels::{PackedTensor, Storage, WeightType};
use pinion_models::TensorSource;

use super::Snapshot;
use crate::source::CheckpointSource;

/// A checkpoint whose derived tensors are kept, beside the model that shares their memory.
pub(crate) struct Recording {
    inner: Arc<dyn CheckpointSource>,
    kept: Mutex<Kept>,
}

/// What was derived, in order, and what was asked about the checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) tensors: Vec<(String, PackedTensor)>,
    pub(crate) block_types: BTreeMap<String, String>,
}

impl Recording {
    pub(crate) fn new(inner: Arc<dyn CheckpointSource>) -> Self {
        Self { inner, kept: Mutex::default() }
    }

    /// The checkpoint itself.
    pub(crate) fn checkpoint(&self) -> Arc<dyn TensorSource> {
        Arc::clone(&self.inner) as Arc<dyn TensorSource>
    }

    /// What was kept so far.
    pub(crate) fn take(&self) -> Kept {
        std::mem::take(&mut self.kept.lock())
    }
}

impl TensorSource for Recording {
    fn load(&self, name: &str) -> Result<Option<Tensor>> {
        self.inner.load(name)
    }

    fn block_type(&self, name: &str) -> Option<WeightType> {
        let kind = self.inner.block_type(name)?;
        self.kept.lock().block_types.insert(name.to_owned(), kind.name().to_owned());
        Some(kind)
    }

    fn blocks(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        self.inner.blocks(name)
    }

    fn derive(
        &self,
        name: &str,
        make: &mut dyn FnMut() -> Result<PackedTensor>,
    ) -> Result<PackedTensor> {
        let packed = self.inner.derive(name, make)?;
        self.kept.lock().tensors.push((name.to_owned(), packed.clone()));
        Ok(packed)
    }
}

/// Tensors that lie in a mapped image. Nothing is made and nothing is copied.
pub(crate) struct RestoredSource(pub(crate) Arc<Snapshot>);

impl TensorSource for RestoredSource {
    fn load(&self, name: &str) -> Result<Option<Tensor>> {
        bail!("a snapshot holds no tensor of the checkpoint: `{name}`")
    }

    fn block_type(&self, name: &str) -> Option<WeightType> {
        WeightType::parse(self.0.manifest().notes.block_types.get(name)?)
    }

    fn derive(
        &self,
        name: &str,
        _make: &mut dyn FnMut() -> Result<PackedTensor>,
    ) -> Result<PackedTensor> {
        let Some((entry, view)) = self.0.tensor(name) else {
            bail!("the snapshot has no weights named `{name}`")
        };
        let Some(kind) = WeightType::parse(&entry.kind) else {
            bail!("the snapshot has `{name}` in an unknown type: {}", entry.kind)
        };
        let (rows, cols) = (entry.rows as usize, entry.cols as usize);
        PackedTensor::from_parts(kind, rows, cols, Storage::Shared(Arc::new(view)))
    }
}
