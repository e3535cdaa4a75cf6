//! Element types of the cache.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use candle_core::{CpuStorage, Result, bail};
use half::{bf16, f16};

/// A type in which keys and values are kept; arithmetic is always `f32`.
pub(crate) trait KvElement: Copy + Send + Sync {
    /// The value, exactly.
    fn widen(self) -> f32;

    /// The nearest value of this type.
    fn narrow(value: f32) -> Self;

    /// The elements of a storage of this type.
    fn slice(storage: &CpuStorage) -> Result<&[Self]>;
}

impl KvElement for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }

    fn slice(storage: &CpuStorage) -> Result<&[Self]> {
        match storage {
            CpuStorage::F32(values) => Ok(values),
            _ => bail!("expected f32 values"),
        }
    }
}

impl KvElement for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn slice(storage: &CpuStorage) -> Result<&[Self]> {
        match storage {
            CpuStorage::BF16(values) => Ok(values),
            _ => bail!("expected bf16 values"),
        }
    }
}

impl KvElement for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn slice(storage: &CpuStorage) -> Result<&[Self]> {
        match storage {
            CpuStorage::F16(values) => Ok(values),
            _ => bail!("expected f16 values"),
        }
    }
}
