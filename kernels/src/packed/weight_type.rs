//! Element types of packed weights.

use std::fmt;
use std::str::FromStr;

use candle_core::Error;

use crate::quant::{BLOCK, Family, Format};

/// How a [`PackedTensor`](crate::PackedTensor) stores one element.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum WeightType {
    /// IEEE single precision.
    F32,
    /// The upper half of an `f32`, rounded to nearest even.
    Bf16,
    /// 8 bits, and a scale a block of 32 columns.
    Q8_0,
    /// 4 bits, and a scale a block of 32 columns.
    Q4_0,
    /// 5 bits, and a scale a block of 32 columns.
    Q5_0,
    /// 4 bits, and a scale and a minimum of 6 bits each a block of 32 columns.
    Q4K,
    /// 5 bits, and a scale and a minimum of 6 bits each a block of 32 columns.
    Q5K,
    /// 6 bits, and a scale of 8 bits for every 16 columns.
    Q6K,
}

impl WeightType {
    /// Every type, in the order of documentation.
    pub const ALL: &'static [Self] = &[
        Self::F32,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q5_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The types whose elements are floating-point numbers.
    pub const DENSE: &'static [Self] = &[Self::F32, Self::Bf16];

    /// The name in configuration and snapshots.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q5_0 => "q5_0",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
        }
    }

    /// Bytes of one element of a dense type; 0 for the quantized ones.
    pub fn size_in_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            _ => 0,
        }
    }

    /// Whether elements are integers that share scales.
    pub fn is_quantized(self) -> bool {
        self.format().is_some()
    }

    /// The type itself where it can hold rows of `cols` columns; otherwise `bf16`.
    ///
    /// Quantized types hold whole blocks of 32 columns. Those that scale 256 columns together hold
    /// a shorter last group as well, unlike files of the same type.
    #[must_use]
    pub fn for_cols(self, cols: usize) -> Self {
        if self.is_quantized() && !cols.is_multiple_of(BLOCK) { Self::Bf16 } else { self }
    }

    /// Bytes of a row of `cols` columns in a GGML file; nothing for dense types, and where the row
    /// is not whole blocks (of 32 columns, of the `_k` types 256).
    pub fn ggml_row_bytes(self, cols: usize) -> Option<usize> {
        crate::quant::row_bytes(self.format()?, cols)
    }

    /// How a quantized type is laid out.
    pub(crate) fn format(self) -> Option<Format> {
        let (bits, family) = match self {
            Self::F32 | Self::Bf16 => return None,
            Self::Q8_0 => (8, Family::Plain),
            Self::Q4_0 => (4, Family::Plain),
            Self::Q5_0 => (5, Family::Plain),
            Self::Q4K => (4, Family::Mins),
            Self::Q5K => (5, Family::Mins),
            Self::Q6K => (6, Family::Halves),
        };
        Some(Format { bits, family })
    }

    /// The type of this [name](Self::name), if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for WeightType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::parse(name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            Error::Msg(format!("unknown weight type `{name}`, known are: {}", known.join(", ")))
        })
    }
}
