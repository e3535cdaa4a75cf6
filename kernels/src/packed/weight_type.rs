//! Element types of packed weights.

use std::fmt;
use std::str::FromStr;

use candle_core::Error;

/// How a [`PackedTensor`](crate::PackedTensor) stores one element.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum WeightType {
    /// IEEE single precision.
    F32,
    /// The upper half of an `f32`, rounded to nearest even.
    Bf16,
}

impl WeightType {
    /// Every type, in the order of documentation.
    pub const ALL: &'static [Self] = &[Self::F32, Self::Bf16];

    /// The name in configuration and snapshots.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of one element.
    pub fn size_in_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
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
