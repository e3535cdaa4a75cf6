//! Tests of quantized weights.

mod ggml;

use candle_core::{Device, Tensor};

use super::block::Block;
use super::tile::{Place, read, write};
use super::*;
use crate::cpu::Cpu;
use crate::packed::{PackedTensor, WeightType};

pub(super) const QUANTIZED: [WeightType; 6] = [
    WeightType::Q8_0,
    WeightType::Q4_0,
    WeightType::Q5_0,
    WeightType::Q4K,
    WeightType::Q5K,
    WeightType::Q6K,
];

/// Deterministic values, about normal with deviation 1.
pub(super) fn normal(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed * 0x9e37_79b9 + 1;
    let mut next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..len).map(|_| (0..12).map(|_| next()).sum()).collect()
}

fn tensor(values: Vec<f32>, rows: usize, cols: usize) -> Tensor {
    Tensor::from_vec(values, (rows, cols), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Root of the mean squared difference, relative to that of the values.
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let gap: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (gap / expected.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}

#[test]
fn tiles_give_back_the_rows_that_were_written() {
    for kind in QUANTIZED {
        let format = kind.format().unwrap();
        for cols in [32, 64, 96, 256, 288, 576] {
            let mut tile = vec![0u8; format.tile_bytes(cols)];
            let mut state = 1u32;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state >> 8
            };
            let mut written = Vec::new();
            for span in 0..cols.div_ceil(format.span()) {
                for lane in 0..TILE_ROWS {
                    let mut block = Block::ZERO;
                    let len = format.span().min(cols - span * format.span());
                    for quant in &mut block.quants[..len] {
                        *quant =
                            ((next() % (1 << format.bits)).cast_signed() - format.offset()) as i8;
                    }
                    block.d = [0, 0].map(|_| half::f16::from_f32((next() % 2048) as f32));
                    match format.family {
                        Family::Plain => {}
                        Family::Mins => {
                            block.scales[..8].fill_with(|| (next() % 64) as i8);
                            block.mins.fill_with(|| (next() % 64) as u8);
                        }
                        Family::Halves => block.scales.fill_with(|| next() as i8),
                    }
                    write(format, cols, &mut tile, Place { lane, span }, &block);
                    written.push((Place { lane, span }, block));
                }
            }
            for (place, block) in written {
                assert_eq!(read(format, cols, &tile, place), block, "{kind} {cols}");
            }
        }
    }
}

#[test]
fn quantized_matrices_are_near_the_original() {
    // What is left of a normal distribution; half a unit of the codes, roughly.
    for (kind, limit) in [
        (WeightType::Q8_0, 0.006),
        (WeightType::Q4_0, 0.09),
        (WeightType::Q5_0, 0.045),
        (WeightType::Q4K, 0.075),
        (WeightType::Q5K, 0.037),
        (WeightType::Q6K, 0.019),
    ] {
        for cols in [512, 576, 32] {
            let original = tensor(normal(3, 70 * cols), 70, cols);
            let packed = PackedTensor::pack(&original, kind).unwrap();
            let error = relative_error(&values(&packed.unpack().unwrap()), &values(&original));
            assert!(error < limit && error > limit / 3.0, "{kind} {cols}: {error}");
        }
    }
}

#[test]
fn simple_values_survive_every_type() {
    for kind in QUANTIZED {
        for value in [0f32, 1.0, -2.0, 1e-20] {
            let packed = PackedTensor::pack(&tensor(vec![value; 64], 1, 64), kind).unwrap();
            let found = values(&packed.unpack().unwrap());
            assert!(
                found.iter().all(|x| (x - value).abs() <= value.abs() * 0.01 + 1e-7),
                "{kind} {value}: {found:?}"
            );
        }
        let mut bad = vec![1f32; 64];
        bad[7] = f32::INFINITY;
        let packed = PackedTensor::pack(&tensor(bad, 1, 64), kind).unwrap();
        assert!(
            !packed.unpack().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().is_finite()
        );
    }
}

#[test]
fn threads_and_instruction_sets_pack_alike() {
    let original = tensor(normal(5, 50 * 320), 50, 320);
    for kind in QUANTIZED {
        let packed: Vec<_> = Cpu::all()
            .iter()
            .map(|cpu| cpu.scope(|| PackedTensor::pack(&original, kind).unwrap()))
            .collect();
        for other in &packed {
            assert!(other.bytes() == packed[0].bytes(), "{kind}");
        }
    }
}

#[test]
fn columns_that_are_not_whole_blocks_are_refused() {
    for kind in QUANTIZED {
        let error = PackedTensor::pack(&tensor(vec![0.0; 2 * 40], 2, 40), kind).unwrap_err();
        assert!(error.to_string().contains("whole blocks of 32 columns: 40"), "{error}");
        assert_eq!(kind.for_cols(40), WeightType::Bf16);
        assert_eq!(kind.for_cols(576), kind);
    }
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    values(tensor).into_iter().map(f32::to_bits).collect()
}

fn product(x: &Tensor, packed: &PackedTensor) -> Tensor {
    let x = crate::Activations::from_tensor(x).unwrap();
    crate::ops::linear(&x, packed, None).unwrap().into_tensor().unwrap()
}

#[test]
fn products_are_near_those_of_the_unrounded_activations() {
    for kind in QUANTIZED {
        for (rows, cols, out) in
            [(1, 32, 1), (3, 96, 17), (2, 320, 70), (33, 576, 48), (5, 1024, 64)]
        {
            let (x, w) = (normal(1, rows * cols), normal(2, out * cols));
            let packed = PackedTensor::pack(&tensor(w, out, cols), kind).unwrap();
            let x = tensor(x, rows, cols);
            let expected = x.matmul(&packed.unpack().unwrap().t().unwrap()).unwrap();
            let error = relative_error(&values(&product(&x, &packed)), &values(&expected));
            assert!(error < 0.02, "{kind} [{rows}, {cols}, {out}]: {error}");
        }
    }
}

#[test]
fn every_path_and_every_batch_gives_the_same_bits() {
    for kind in QUANTIZED {
        for (cols, out) in [(32, 20), (64, 16), (96, 130), (288, 64), (576, 200), (1024, 64)] {
            let packed =
                PackedTensor::pack(&tensor(normal(2, out * cols), out, cols), kind).unwrap();
            let x = tensor(normal(1, 40 * cols), 40, cols);
            let expected = Cpu::all().last().unwrap().scope(|| bits(&product(&x, &packed)));
            for cpu in Cpu::all() {
                cpu.scope(|| {
                    for (first, rows) in [
                        (0, 40),
                        (0, 1),
                        (39, 1),
                        (3, 2),
                        (4, 3),
                        (5, 4),
                        (1, 5),
                        (2, 6),
                        (7, 7),
                        (8, 8),
                        (6, 9),
                        (1, 15),
                        (1, 16),
                        (3, 17),
                        (2, 33),
                    ] {
                        let found = bits(&product(&x.narrow(0, first, rows).unwrap(), &packed));
                        let same = found == expected[first * out..(first + rows) * out];
                        assert!(
                            same,
                            "{kind} {cols} {out}: {rows} rows from {first} on {:?}",
                            cpu.isa
                        );
                    }
                });
            }
        }
    }
}

#[test]
fn more_rows_than_are_taken_at_once_keep_their_places() {
    let (rows, cols, out) = (530, 320, 20);
    for kind in [WeightType::Q8_0, WeightType::Q4K] {
        let packed = PackedTensor::pack(&tensor(normal(2, out * cols), out, cols), kind).unwrap();
        let x = tensor(normal(1, rows * cols), rows, cols);
        let all = Cpu::all().into_iter().map(|cpu| cpu.scope(|| bits(&product(&x, &packed))));
        let all: Vec<Vec<u32>> = all.collect();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{kind}");
    }
}

#[test]
fn not_a_number_fills_its_row_and_no_other() {
    for kind in QUANTIZED {
        let packed = PackedTensor::pack(&tensor(normal(2, 40 * 288), 40, 288), kind).unwrap();
        let clean = tensor(normal(1, 20 * 288), 20, 288);
        let expected = product(&clean, &packed).to_vec2::<f32>().unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut rows = clean.to_vec2::<f32>().unwrap();
            rows[3][270] = bad;
            rows[4].fill(1e-38);
            rows[5].fill(f32::MAX);
            let x = Tensor::new(rows, &Device::Cpu).unwrap();
            for cpu in Cpu::all() {
                let found = cpu.scope(|| product(&x, &packed).to_vec2::<f32>().unwrap());
                assert!(found[3].iter().all(|y| y.is_nan()), "{kind} {bad} {:?}", cpu.isa);
                assert!(found[4].iter().all(|y| y.abs() < 1e-30), "{kind} {:?}", cpu.isa);
                assert_eq!(found[..3], expected[..3], "{kind} {:?}", cpu.isa);
                assert_eq!(found[6..], expected[6..], "{kind} {:?}", cpu.isa);
            }
        }
    }
}

#[test]
fn embeddings_gather_quantized_rows() {
    let ids = Tensor::new(&[0u32, 39, 16, 15], &Device::Cpu).unwrap();
    for kind in QUANTIZED {
        let packed = PackedTensor::pack(&tensor(normal(2, 40 * 288), 40, 288), kind).unwrap();
        let expected = packed.unpack().unwrap().index_select(&ids, 0).unwrap();
        assert_eq!(
            bits(&crate::ops::embedding(&ids, &packed).unwrap().into_tensor().unwrap()),
            bits(&expected),
            "{kind}"
        );
    }
}
