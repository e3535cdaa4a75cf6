//! Tests of packed weights.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::*;

fn matrix(rows: usize, cols: usize) -> Tensor {
    let values: Vec<f32> = (0..rows * cols).map(|i| (i as f32).sin() * 3.0).collect();
    Tensor::from_vec(values, (rows, cols), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

proptest! {
    #[test]
    fn unpacking_returns_what_was_packed(rows in 1usize..200, cols in 1usize..40) {
        let tensor = matrix(rows, cols);
        let rounded = tensor.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        for (kind, expected) in [(WeightType::F32, &tensor), (WeightType::Bf16, &rounded)] {
            let packed = PackedTensor::pack(&tensor, kind).unwrap();
            prop_assert_eq!((packed.rows(), packed.cols(), packed.kind()), (rows, cols, kind));
            prop_assert_eq!(values(&packed.unpack().unwrap()), values(expected));
        }
    }
}

#[test]
fn the_layout_is_the_documented_one() {
    let tensor = matrix(130, 3);
    let rows = tensor.to_vec2::<f32>().unwrap();
    let f32s = PackedTensor::pack(&tensor, WeightType::F32).unwrap();
    let bf16s = PackedTensor::pack(&tensor, WeightType::Bf16).unwrap();
    let at = |row: usize, col: usize| rows.get(row).map_or(0.0, |row| row[col]);
    for (panel, col, lane) in [(0, 0, 0), (0, 2, 17), (1, 1, 63), (2, 0, 1), (2, 2, 40)] {
        let row = panel * 64 + lane;
        let element = (panel * 3 + col) * 64 + lane;
        let found = f32::from_le_bytes(f32s.bytes()[element * 4..][..4].try_into().unwrap());
        assert_eq!(found.to_bits(), at(row, col).to_bits());

        // Groups of 16 rows have 32 columns, in pairs.
        let half = row / 16 * 16 * 32 + col / 2 * 32 + lane % 16 * 2 + col % 2;
        let found = bf16::from_le_bytes(bf16s.bytes()[half * 2..][..2].try_into().unwrap());
        assert_eq!(found, bf16::from_f32(at(row, col)));
    }
}

#[test]
fn fused_parts_are_the_rows_one_after_the_other() {
    let whole = matrix(150, 5);
    let parts = [0..70, 70..71, 71..150].map(|r| whole.narrow(0, r.start, r.len()).unwrap());
    for &kind in WeightType::DENSE {
        let fused = PackedTensor::pack_parts(&parts, kind).unwrap();
        assert_eq!(fused.bytes(), PackedTensor::pack(&whole, kind).unwrap().bytes());
    }
    let wrong = [matrix(2, 3), matrix(2, 4)];
    let error = PackedTensor::pack_parts(&wrong, WeightType::F32).unwrap_err();
    assert!(error.to_string().contains("4 columns"), "{error}");
}

#[test]
fn vectors_keep_their_values() {
    let vector = matrix(1, 100).flatten_all().unwrap();
    let packed = PackedTensor::pack_vector(&vector).unwrap();
    assert_eq!(values(&packed.to_vector().unwrap()), values(&vector));
    assert!(PackedTensor::pack(&matrix(4, 2), WeightType::F32).unwrap().to_vector().is_err());
}

#[test]
fn strided_views_and_half_precision_checkpoints_pack_alike() {
    let tensor = matrix(70, 9).to_dtype(DType::BF16).unwrap();
    let view = tensor.t().unwrap().contiguous().unwrap().t().unwrap();
    let packed = PackedTensor::pack(&view, WeightType::Bf16).unwrap();
    assert_eq!(packed.bytes(), PackedTensor::pack(&tensor, WeightType::Bf16).unwrap().bytes());
}

#[test]
fn adopted_bytes_must_have_the_right_size() {
    let packed = PackedTensor::pack(&matrix(65, 7), WeightType::Bf16).unwrap();
    let again = PackedTensor::from_parts(WeightType::Bf16, 65, 7, packed.bytes()).unwrap();
    assert_eq!(values(&again.unpack().unwrap()), values(&packed.unpack().unwrap()));

    let short = &packed.bytes()[4..];
    for (kind, rows, cols, bytes) in [
        (WeightType::Bf16, 65, 7, short),
        (WeightType::F32, 65, 7, packed.bytes()),
        (WeightType::Bf16, 129, 7, packed.bytes()),
        (WeightType::Bf16, 0, 7, &[][..]),
        (WeightType::Bf16, usize::MAX, 7, packed.bytes()),
        (WeightType::Bf16, usize::MAX / 64, 64, packed.bytes()),
    ] {
        assert!(PackedTensor::from_parts(kind, rows, cols, bytes).is_err(), "{kind} {rows}");
    }
}

#[test]
fn integers_are_no_weights() {
    let tensor = Tensor::zeros((2, 2), DType::U32, &Device::Cpu).unwrap();
    let error = PackedTensor::pack(&tensor, WeightType::F32).unwrap_err();
    assert!(error.to_string().contains("floating point"), "{error}");
}

#[test]
fn large_buffers_are_zero_and_aligned_to_huge_pages() {
    let bytes = AlignedBytes::zeroed(5 << 20);
    assert!(bytes.as_slice().iter().all(|&byte| byte == 0));
    assert_eq!(bytes.as_slice().as_ptr().addr() % (2 << 20), 0);
}

#[test]
fn weight_types_have_names_that_parse() {
    for &kind in WeightType::ALL {
        assert_eq!(kind.name().parse::<WeightType>().unwrap(), kind);
    }
    let error = "q9".parse::<WeightType>().unwrap_err();
    assert!(error.to_string().contains("unknown weight type `q9`, known are: f32, bf16"));
}

#[test]
fn weights_in_a_mapped_file_are_used_in_place() {
    /// Part of a file in memory.
    struct Part(memmap2::Mmap, usize);
    impl AsRef<[u8]> for Part {
        fn as_ref(&self) -> &[u8] {
            &self.0[self.1..]
        }
    }
    let x = crate::Activations::from_tensor(&matrix(3, 288)).unwrap();
    for &kind in WeightType::ALL {
        let packed = PackedTensor::pack(&matrix(70, 288), kind).unwrap();
        let expected = crate::ops::linear(&x, &packed, None).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &[0; 64]).unwrap();
        std::io::Write::write_all(&mut file, packed.bytes()).unwrap();
        // SAFETY: nobody else has the file.
        #[expect(unsafe_code, reason = "mapping a file of this test")]
        let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        let address = map.as_ptr().addr() + 64;
        let storage = Storage::Shared(std::sync::Arc::new(Part(map, 64)));
        let mapped = PackedTensor::from_parts(kind, 70, 288, storage).unwrap();
        assert_eq!(mapped.bytes().as_ptr().addr(), address, "{kind} was copied");
        assert_eq!(mapped.clone().bytes().as_ptr().addr(), address, "{kind} was copied");
        let found = crate::ops::linear(&x, &mapped, None).unwrap();
        assert_eq!(found.values(), expected.values(), "{kind}");
    }
}
