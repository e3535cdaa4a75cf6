//! Checkpoint tensors of which many weights are made, read at most once.

use std::cell::OnceCell;

use candle_core::{Result, Tensor};
use pinion_kernels::PackedTensor;

use crate::config::TensorKind;
use crate::mxfp4;
use crate::weights::{Wanted, Weights, kind_for};

/// A few tensors, read when the first weight is made of them and kept until the last one is.
pub(crate) struct Stacked {
    weights: Weights,
    wanted: Vec<Wanted>,
    kind: TensorKind,
    tensors: OnceCell<Vec<Tensor>>,
}

/// Picks out of the tensors what one weight is made of.
type Pick<'a, T> = &'a dyn Fn(&[Tensor]) -> Result<T>;

impl Stacked {
    pub(crate) fn new(weights: Weights, wanted: Vec<Wanted>, kind: TensorKind) -> Self {
        Self { weights, wanted, kind, tensors: OnceCell::new() }
    }

    fn tensors(&self) -> Result<&[Tensor]> {
        if let Some(tensors) = self.tensors.get() {
            return Ok(tensors);
        }
        let loaded = self.weights.load_all(&self.wanted, self.kind)?;
        Ok(self.tensors.get_or_init(|| loaded))
    }

    /// A matrix `[rows, cols]`.
    pub(crate) fn matrix(
        &self,
        name: &str,
        shape: [usize; 2],
        make: Pick<'_, Tensor>,
    ) -> Result<PackedTensor> {
        self.weights.derive_from(name, shape, &[], &mut || {
            let made = [make(self.tensors()?)?];
            PackedTensor::pack_parts(&made, kind_for(self.weights.kind, &made))
        })
    }

    /// A vector `[size]`.
    pub(crate) fn vector(&self, name: &str, size: usize, make: Pick<'_, Tensor>) -> Result<Tensor> {
        let pack = &mut || PackedTensor::pack_vector(&make(self.tensors()?)?);
        self.weights.derive_from(name, [size, 1], &[], pack)?.to_vector()
    }

    /// A matrix `[rows, cols]` of blocks and their scales.
    pub(crate) fn mxfp4(
        &self,
        name: &str,
        shape: [usize; 2],
        make: Pick<'_, [Tensor; 2]>,
    ) -> Result<PackedTensor> {
        let pack = &mut || mxfp4::pack(&make(self.tensors()?)?, self.weights.kind);
        self.weights.derive_from(name, shape, &[], pack)
    }
}
