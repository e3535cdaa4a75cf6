//! Where weights, caches and activations live.

use candle_core::Result as Outcome;

use crate::attention::{AttentionBackend, PagedAttention};
use crate::cuda::{DeviceAttention, Gpu};
use crate::{DeviceError, PackedTensor, cpu};

/// The host or one GPU. Whoever holds weights or a cache passes it on and never asks which.
#[derive(Clone, Debug, Default)]
pub enum Device {
    /// Memory and threads of this machine.
    #[default]
    Cpu,
    /// A GPU.
    Gpu(Gpu),
}

impl Device {
    /// The device that a configuration names: `cpu`, `cuda`, `cuda:N`, or `auto`: the first GPU if
    /// this build and this machine have one, else the host. None when it names none.
    ///
    /// # Errors
    /// When it names a GPU that cannot be used.
    pub fn open(name: &str) -> Result<Option<Self>, DeviceError> {
        match name {
            "cpu" => Ok(Some(Self::Cpu)),
            #[cfg(feature = "emulation")]
            "emulated" => Ok(Some(Self::Gpu(Gpu::emulated()?))),
            "auto" => match Gpu::open(0) {
                Err(DeviceError::Missing { .. }) => Ok(Some(Self::Cpu)),
                gpu => gpu.map(|gpu| Some(Self::Gpu(gpu))),
            },
            name => {
                let index = match name.strip_prefix("cuda") {
                    Some("") => Some(0),
                    Some(rest) => rest.strip_prefix(':').and_then(|index| index.parse().ok()),
                    None => None,
                };
                index.map(|index| Gpu::open(index).map(Self::Gpu)).transpose()
            }
        }
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Cpu => cpu::describe(),
            Self::Gpu(gpu) => gpu.name().to_owned(),
        }
    }

    /// Bytes of its memory that are free; none where the host's own figures say it.
    pub fn free_memory(&self) -> Result<Option<u64>, DeviceError> {
        match self {
            Self::Cpu => Ok(None),
            Self::Gpu(gpu) => Ok(Some(gpu.memory()?.0 as u64)),
        }
    }

    /// The attention of models whose cache is there.
    pub fn attention(&self) -> Box<dyn AttentionBackend> {
        match self {
            Self::Cpu => Box::new(PagedAttention),
            Self::Gpu(_) => Box::<DeviceAttention>::default(),
        }
    }

    /// Weights as this device reads them: on the host the same, on a GPU a copy of the bytes.
    pub fn place(&self, weights: PackedTensor) -> Outcome<PackedTensor> {
        match self {
            Self::Cpu => Ok(weights),
            Self::Gpu(gpu) => weights.copy_to(gpu),
        }
    }
}
