//! Matrices of 4-bit floats that share an exponent, 32 in a block (OCP MX, `mxfp4` in transformers).

use candle_core::{DType, Device, Result, Tensor, bail};
use pinion_kernels::{PackedTensor, WeightType};

/// Twice the value of each code.
const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Columns of a block.
const BLOCK: usize = 32;

/// Packs a matrix as `kind`, or without loss in what takes least memory.
///
/// `blocks` is `[rows, cols / 32, 16]` u8, the code of an even column in the low half of a byte;
/// `scales` is `[rows, cols / 32]` u8, exponents of two plus 127.
pub(crate) fn pack(
    [blocks, scales]: &[Tensor; 2],
    kind: Option<WeightType>,
) -> Result<PackedTensor> {
    let (rows, groups, bytes) = blocks.dims3()?;
    if bytes * 2 != BLOCK || scales.dims() != [rows, groups] {
        bail!("mxfp4 blocks {:?} do not fit their scales {:?}", blocks.dims(), scales.dims())
    }
    let cols = groups * BLOCK;
    let (codes, exponents) =
        (blocks.flatten_all()?.to_vec1::<u8>()?, scales.flatten_all()?.to_vec1::<u8>()?);
    let blocks = codes.as_chunks::<16>().0.iter().zip(&exponents);
    // Halves of the codes' steps are f16 numbers in this range.
    if kind.is_none() && exponents.iter().all(|exponent| (104..=143).contains(exponent)) {
        let mut bytes = Vec::with_capacity(exponents.len() * 22);
        blocks.for_each(|(codes, &exponent)| bytes.extend(q5_0(codes, exponent)));
        return PackedTensor::from_ggml(WeightType::Q5_0, cols, &[&bytes]);
    }
    let mut values = Vec::with_capacity(rows * cols);
    for (codes, &exponent) in blocks {
        let step = f64::powi(2.0, i32::from(exponent) - 128) as f32;
        values.extend(columns(codes).map(|code| f32::from(code) * step));
    }
    // Three bits and an exponent are exact in bf16.
    let values = Tensor::from_vec(values, (rows, cols), &Device::Cpu)?.to_dtype(DType::BF16)?;
    let kind = kind.unwrap_or(WeightType::Bf16).for_cols(cols);
    PackedTensor::pack_parts(&[values], kind)
}

/// Twice the values of a block, in units of its scale.
fn columns(codes: &[u8; 16]) -> impl Iterator<Item = i8> {
    codes.iter().flat_map(|&pair| [pair & 15, pair >> 4]).map(|code| DOUBLED[usize::from(code)])
}

/// A block of GGML's `q5_0` with the same values: they are among its 32 multiples of a scale.
fn q5_0(codes: &[u8; 16], exponent: u8) -> [u8; 22] {
    let mut block = [0u8; 22];
    let scale = half::f16::from_f64(f64::powi(2.0, i32::from(exponent) - 128));
    block[..2].copy_from_slice(&scale.to_le_bytes());
    let mut fifth_bits = 0u32;
    for (column, code) in columns(codes).enumerate() {
        let code = (code + 16).cast_unsigned();
        let shift = if column < 16 { 0 } else { 4 };
        block[6 + column % 16] |= (code & 15) << shift;
        fifth_bits |= u32::from(code >> 4) << column;
    }
    block[2..6].copy_from_slice(&fifth_bits.to_le_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(exponents: [u8; 4]) -> [Tensor; 2] {
        let codes: Vec<u8> = (0..64u32).map(|i| (i * 73 % 256) as u8).collect();
        [
            Tensor::from_vec(codes, (2, 2, 16), &Device::Cpu).unwrap(),
            Tensor::from_vec(exponents.to_vec(), (2, 2), &Device::Cpu).unwrap(),
        ]
    }

    fn values(packed: &PackedTensor) -> Vec<f32> {
        packed.unpack().unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_quantized_form_has_the_same_values() {
        let matrix = matrix([104, 143, 120, 127]);
        let (small, exact) = (pack(&matrix, None).unwrap(), pack(&matrix, Some(WeightType::F32)));
        assert_eq!(small.kind(), WeightType::Q5_0);
        assert_eq!(values(&small), values(&exact.unwrap()));
        // Codes 0 and 0, 9 and 4: 0, 0, -0.5, 2 in the first block.
        let step = f32::powi(2.0, -23);
        assert_eq!(values(&small)[..4], [0.0, 0.0, -0.5 * step, 2.0 * step]);
    }

    #[test]
    fn scales_beyond_f16_keep_their_values_in_bf16() {
        let matrix = matrix([103, 200, 120, 127]);
        let packed = pack(&matrix, None).unwrap();
        assert_eq!(packed.kind(), WeightType::Bf16);
        assert_eq!(values(&packed), values(&pack(&matrix, Some(WeightType::F32)).unwrap()));
    }

    #[test]
    fn blocks_without_scales_are_refused() {
        let [blocks, scales] = matrix([120; 4]);
        assert!(pack(&[blocks, scales.narrow(1, 0, 1).unwrap()], None).is_err());
    }
}
