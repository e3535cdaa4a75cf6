//! The types in which GGUF stores tensors.

use pinion_kernels::WeightType;

/// A type of GGML, known by name and size even where it is not loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockType {
    number: u32,
    name: &'static str,
    block: u32,
    bytes: u32,
}

const fn kind(number: u32, name: &'static str, block: u32, bytes: u32) -> BlockType {
    BlockType { number, name, block, bytes }
}

/// Every type of `ggml.h`, sizes as in its `type_traits`.
const TYPES: &[BlockType] = &[
    kind(0, "F32", 1, 4),
    kind(1, "F16", 1, 2),
    kind(2, "Q4_0", 32, 18),
    kind(3, "Q4_1", 32, 20),
    kind(6, "Q5_0", 32, 22),
    kind(7, "Q5_1", 32, 24),
    kind(8, "Q8_0", 32, 34),
    kind(9, "Q8_1", 32, 36),
    kind(10, "Q2_K", 256, 84),
    kind(11, "Q3_K", 256, 110),
    kind(12, "Q4_K", 256, 144),
    kind(13, "Q5_K", 256, 176),
    kind(14, "Q6_K", 256, 210),
    kind(15, "Q8_K", 256, 292),
    kind(16, "IQ2_XXS", 256, 66),
    kind(17, "IQ2_XS", 256, 74),
    kind(18, "IQ3_XXS", 256, 98),
    kind(19, "IQ1_S", 256, 50),
    kind(20, "IQ4_NL", 32, 18),
    kind(21, "IQ3_S", 256, 110),
    kind(22, "IQ2_S", 256, 82),
    kind(23, "IQ4_XS", 256, 136),
    kind(24, "I8", 1, 1),
    kind(25, "I16", 1, 2),
    kind(26, "I32", 1, 4),
    kind(27, "I64", 1, 8),
    kind(28, "F64", 1, 8),
    kind(29, "IQ1_M", 256, 56),
    kind(30, "BF16", 1, 2),
    kind(34, "TQ1_0", 256, 54),
    kind(35, "TQ2_0", 256, 66),
    kind(39, "MXFP4", 32, 17),
];

impl BlockType {
    /// The type of this number.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        TYPES.iter().copied().find(|kind| kind.number == number)
    }

    /// As GGML writes it.
    pub(crate) fn name(self) -> &'static str {
        self.name
    }

    /// The same type of packed weights, if it is quantized and there is one.
    pub(super) fn blocks(self) -> Option<WeightType> {
        let kind = WeightType::parse(&self.name.to_lowercase())?;
        kind.is_quantized().then_some(kind)
    }

    /// Elements of a block; rows are whole blocks.
    pub(super) fn block(self) -> u64 {
        self.block.into()
    }

    /// Bytes of a row of `cols` elements; none if they cannot be counted.
    pub(super) fn row_bytes(self, cols: u64) -> Option<u64> {
        (cols / self.block()).checked_mul(self.bytes.into())
    }
}
