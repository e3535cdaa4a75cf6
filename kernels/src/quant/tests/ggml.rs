//! The GGML types against their own library.
//!
//! `ggml_blocks.bin` was written by ggml of llama.cpp 0c1e57098: 2 rows of 512 f32 values, then for
//! each type the blocks that `ggml_quantize_chunk` makes of them and the values that the type's
//! `to_float` gives back.

use super::*;

const GOLDEN: &[u8] = include_bytes!("ggml_blocks.bin");
const ROWS: usize = 2;
const COLS: usize = 512;

/// What ggml loses of 256 rows of 1,024 values from `normal(5, ..)`, relative to them.
const ERRORS: [(WeightType, f64); 6] = [
    (WeightType::Q8_0, 0.005_271),
    (WeightType::Q4_0, 0.084_578),
    (WeightType::Q5_0, 0.042_077),
    (WeightType::Q4K, 0.070_473),
    (WeightType::Q5K, 0.035_713),
    (WeightType::Q6K, 0.017_521),
];

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// For each type the blocks and the values they stand for.
fn golden() -> Vec<(WeightType, &'static [u8], Vec<f32>)> {
    let (_, mut rest) = GOLDEN.split_at(ROWS * COLS * 4);
    let mut all = Vec::new();
    for kind in QUANTIZED {
        let (blocks, values) = rest.split_at(ROWS * kind.ggml_row_bytes(COLS).unwrap());
        let (values, next) = values.split_at(ROWS * COLS * 4);
        all.push((kind, blocks, floats(values)));
        rest = next;
    }
    assert!(rest.is_empty());
    all
}

#[test]
fn blocks_of_a_file_keep_their_values() {
    for (kind, blocks, expected) in golden() {
        let packed = PackedTensor::from_ggml(kind, COLS, &[blocks]).unwrap();
        assert_eq!((packed.rows(), packed.cols(), packed.kind()), (ROWS, COLS, kind));
        let found = values(&packed.unpack().unwrap());
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // The library may round `a * b - c` once, and so differs in the last bits.
            assert!((found - expected).abs() <= 2e-6, "{kind} {index}: {found} {expected}");
        }
    }
}

#[test]
fn parts_of_a_file_are_the_rows_one_after_the_other() {
    for (kind, blocks, _) in golden() {
        let row = kind.ggml_row_bytes(COLS).unwrap();
        let (first, second) = blocks.split_at(row);
        let parts = [blocks, second, first, &blocks.repeat(9)[..17 * row]];
        let packed = PackedTensor::from_ggml(kind, COLS, &parts).unwrap();
        let whole = PackedTensor::from_ggml(kind, COLS, &[blocks]).unwrap().unpack().unwrap();
        let order: Vec<u32> = [0, 1, 1, 0].into_iter().chain((0..17).map(|row| row % 2)).collect();
        let expected = whole.index_select(&Tensor::new(order, &Device::Cpu).unwrap(), 0).unwrap();
        assert_eq!(bits(&packed.unpack().unwrap()), bits(&expected), "{kind}");
    }
}

#[test]
fn our_own_blocks_lose_no_more_than_those_of_the_library() {
    let original = normal(5, 256 * 1024);
    for (kind, limit) in ERRORS {
        let packed = PackedTensor::pack(&tensor(original.clone(), 256, 1024), kind).unwrap();
        let error = relative_error(&values(&packed.unpack().unwrap()), &original);
        assert!(error <= limit + 1e-6, "{kind}: {error}, the library {limit}");
    }
    let source = floats(&GOLDEN[..ROWS * COLS * 4]);
    for (kind, _, theirs) in golden() {
        let packed = PackedTensor::pack(&tensor(source.clone(), ROWS, COLS), kind).unwrap();
        let error = relative_error(&values(&packed.unpack().unwrap()), &source);
        let limit = relative_error(&theirs, &source);
        assert!(error <= limit * 1.02, "{kind}: {error}, the library {limit}");
    }
}

#[test]
fn bytes_that_are_no_rows_of_blocks_are_refused() {
    let refuse = |kind, cols, parts: &[&[u8]]| {
        PackedTensor::from_ggml(kind, cols, parts).unwrap_err().to_string()
    };
    let error = refuse(WeightType::Q4K, 288, &[&[0; 144]]);
    assert!(error.contains("288 columns is not made of blocks of 256"), "{error}");
    let error = refuse(WeightType::Q8_0, 64, &[&[0; 67]]);
    assert!(error.contains("67 bytes are not rows of 68 bytes"), "{error}");
    assert!(refuse(WeightType::Bf16, 64, &[&[0; 128]]).contains("not a type of quantized blocks"));
    assert!(PackedTensor::from_ggml(WeightType::Q8_0, 0, &[&[0; 34]]).is_err());
    assert!(PackedTensor::from_ggml(WeightType::Q8_0, 64, &[]).is_err());
    assert!(PackedTensor::from_ggml(WeightType::Q8_0, 64, &[&[]]).is_err());
}
