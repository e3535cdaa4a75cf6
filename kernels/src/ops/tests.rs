//! Tests of the operations.

use candle_core::{D, DType, Device, Result, Tensor};

use super::RopeTable;
use crate::cpu::Cpu;
use crate::{Activations, PackedTensor, WeightType};

mod decoders;

const CPU: &Device = &Device::Cpu;

fn linear(x: &Tensor, weight: &PackedTensor, bias: Option<&Tensor>) -> Result<Tensor> {
    super::linear(&Activations::from_tensor(x)?, weight, bias)?.into_tensor()
}

fn embedding(ids: &Tensor, table: &PackedTensor) -> Result<Tensor> {
    super::embedding(ids, table)?.into_tensor()
}

fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    super::rms_norm(&Activations::from_tensor(x)?, weight, eps)?.into_tensor()
}

fn silu_mul(x: &Tensor) -> Result<Tensor> {
    super::silu_mul(&Activations::from_tensor(x)?)?.into_tensor()
}

/// Rotates all heads of `x` `[n, heads, head_dim]`.
fn rope(x: &Tensor, positions: &Tensor, table: &RopeTable) -> Result<Tensor> {
    let (_, heads, head_dim) = x.dims3()?;
    let mut rows = Activations::from_tensor(&x.flatten_from(1)?)?;
    super::rope(&mut rows, (0..heads, head_dim), positions, table)?;
    rows.into_tensor()?.reshape(x.shape())
}

/// Deterministic values between -1 and 1.
fn values(seed: usize, shape: &[usize]) -> Tensor {
    let mut state = seed as u64 * 0x9e37_79b9 + 1;
    let next = std::iter::repeat_with(move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    });
    Tensor::from_vec(next.take(shape.iter().product()).collect::<Vec<_>>(), shape, CPU).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

#[track_caller]
fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.shape(), expected.shape());
    let scale = expected.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap().max(1.0);
    let gap = (found - expected).unwrap().abs().unwrap().max_all().unwrap();
    let gap = gap.to_scalar::<f32>().unwrap();
    assert!(gap <= tolerance * scale, "differs by {gap} at scale {scale}");
}

/// Checks that every row alone gives the bits it gives in batches of 1 to 70 rows.
///
/// On every path and number of threads; threads must not change a bit either.
#[track_caller]
fn assert_batch_invariant(num_rows: usize, op: impl Fn(usize, usize) -> Result<Tensor>) {
    for cpus in Cpu::all().chunks(2) {
        let whole = |cpu: &Cpu| cpu.scope(|| bits(&op(0, num_rows).unwrap()));
        assert!(whole(&cpus[0]) == whole(&cpus[1]), "threads change {:?}", cpus[0].isa);
        for cpu in cpus {
            cpu.scope(|| check_batches(num_rows, &op));
        }
    }
}

#[track_caller]
fn check_batches(num_rows: usize, op: &impl Fn(usize, usize) -> Result<Tensor>) {
    let alone: Vec<_> = (0..num_rows).map(|row| bits(&op(row, 1).unwrap())).collect();
    for len in [2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 16, 31, 33, 64, 70] {
        for start in [0, num_rows - len] {
            let batch = bits(&op(start, len).unwrap());
            assert!(batch == alone[start..start + len].concat(), "{len} rows from {start}");
        }
    }
}

#[test]
fn linear_is_a_matrix_product_with_the_packed_weights() {
    for cpu in Cpu::all() {
        cpu.scope(check_linear);
    }
}

fn check_linear() {
    for (rows, in_dim, out_dim) in [
        (1, 1, 1),
        (1, 64, 64),
        (2, 31, 63),
        (3, 33, 65),
        (7, 100, 130),
        (100, 257, 200),
        (20, 5000, 70),
    ] {
        let (x, w) = (values(1, &[rows, in_dim]), values(2, &[out_dim, in_dim]));
        let bias = values(3, &[out_dim]);
        for &kind in WeightType::DENSE {
            let packed = PackedTensor::pack(&w, kind).unwrap();
            let expected = x.matmul(&packed.unpack().unwrap().t().unwrap()).unwrap();
            assert_close(&linear(&x, &packed, None).unwrap(), &expected, 1e-5);
            let expected = expected.broadcast_add(&bias).unwrap();
            assert_close(&linear(&x, &packed, Some(&bias)).unwrap(), &expected, 1e-5);
        }
    }
}

#[test]
fn adding_a_linear_is_adding_its_result() {
    let (x, bias) = (values(4, &[20, 96]), values(6, &[70]));
    for cpu in Cpu::all() {
        cpu.scope(|| {
            for &kind in WeightType::ALL {
                let packed = PackedTensor::pack(&values(5, &[70, 96]), kind).unwrap();
                for bias in [None, Some(&bias)] {
                    let before = values(7, &[20, 70]);
                    let mut sums = Activations::from_tensor(&before).unwrap();
                    let x = Activations::from_tensor(&x).unwrap();
                    super::add_linear(&x, &packed, bias, &mut sums).unwrap();
                    let added = super::linear(&x, &packed, bias).unwrap().into_tensor().unwrap();
                    let expected = (before + added).unwrap();
                    assert_eq!(bits(&sums.into_tensor().unwrap()), bits(&expected), "{kind}");
                }
            }
        });
    }
}

#[test]
fn the_largest_and_smallest_activations_keep_their_place() {
    let mut table = vec![0f32; 64 * 32];
    table.iter_mut().step_by(33).for_each(|diagonal| *diagonal = 1.0);
    let weight = Tensor::from_vec(table, (64, 32), CPU).unwrap();
    let packed = PackedTensor::pack(&weight, WeightType::Bf16).unwrap();
    let mut row = vec![f32::MAX, f32::MIN, 1e-30, -1.0, 1.0 + f32::EPSILON, 3.0e38, 0.0, -0.3];
    row.resize(32, 0.0);
    for cpu in Cpu::all() {
        let x = Tensor::new(row.as_slice(), CPU).unwrap().unsqueeze(0).unwrap();
        let out = cpu.scope(|| linear(&x, &packed, None)).unwrap().to_vec2::<f32>().unwrap();
        for (x, y) in row.iter().zip(&out[0]) {
            assert!((x - y).abs() <= x.abs() / 65_536.0, "{:?}: {x} became {y}", cpu.isa);
        }
    }
}

#[test]
fn linear_rows_do_not_depend_on_their_batch() {
    for &kind in WeightType::DENSE {
        let packed = PackedTensor::pack(&values(7, &[150, 77]), kind).unwrap();
        let (x, bias) = (values(8, &[70, 77]), values(9, &[150]));
        assert_batch_invariant(70, |start, len| {
            linear(&x.narrow(0, start, len)?, &packed, Some(&bias))
        });
    }
}

#[test]
fn not_a_number_stays_in_its_row_of_a_linear() {
    let packed = PackedTensor::pack(&values(7, &[70, 40]), WeightType::Bf16).unwrap();
    let clean = values(8, &[3, 40]);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut rows = clean.to_vec2::<f32>().unwrap();
        rows[1][17] = bad;
        let x = Tensor::new(rows, CPU).unwrap();
        let out = linear(&x, &packed, None).unwrap().to_vec2::<f32>().unwrap();
        let expected = linear(&clean, &packed, None).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(out[0], expected[0]);
        assert_eq!(out[2], expected[2]);
        assert!(out[1].iter().all(|y| !y.is_finite()), "{bad} was lost");
    }
}

#[test]
fn embedding_gathers_the_rows_of_the_table() {
    let ids = Tensor::new(&[0u32, 99, 64, 63, 64], CPU).unwrap();
    for &kind in WeightType::DENSE {
        let packed = PackedTensor::pack(&values(1, &[100, 33]), kind).unwrap();
        let expected = packed.unpack().unwrap().index_select(&ids, 0).unwrap();
        assert_eq!(bits(&embedding(&ids, &packed).unwrap()), bits(&expected));
    }
}

#[test]
fn rms_norm_follows_its_formula() {
    for width in [1, 7, 16, 64, 100, 576] {
        let (x, weight) = (values(1, &[5, width]), values(2, &[width]));
        let mean = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
        let scaled = x.broadcast_div(&(mean + 1e-5).unwrap().sqrt().unwrap()).unwrap();
        let expected = scaled.broadcast_mul(&weight).unwrap();
        assert_close(&rms_norm(&x, &weight, 1e-5).unwrap(), &expected, 1e-6);
    }
}

#[test]
fn heads_are_normalized_in_place_and_alone() {
    let (fused, weight) = (values(1, &[6, 4 * 16]), values(2, &[16]));
    let heads = fused.reshape((24, 16)).unwrap();
    let expected = rms_norm(&heads, &weight, 1e-6).unwrap().reshape((6, 4, 16)).unwrap();
    let mut rows = Activations::from_tensor(&fused).unwrap();
    super::rms_norm_heads(&mut rows, 1..3, &weight, 1e-6).unwrap();
    let found = rows.into_tensor().unwrap().reshape((6, 4, 16)).unwrap();
    let part = |t: &Tensor, first, len| bits(&t.narrow(1, first, len).unwrap());
    let fused = fused.reshape((6, 4, 16)).unwrap();
    assert_eq!(part(&found, 1, 2), part(&expected, 1, 2));
    assert_eq!(part(&found, 0, 1), part(&fused, 0, 1));
    assert_eq!(part(&found, 3, 1), part(&fused, 3, 1));
}

#[test]
fn selected_rows_come_in_the_order_of_their_indices() {
    let x = values(1, &[5, 7]);
    let indices = Tensor::new(&[4u32, 0, 4], CPU).unwrap();
    let rows = Activations::from_tensor(&x).unwrap();
    let found = super::select_rows(&rows, &indices).unwrap().into_tensor().unwrap();
    assert_eq!(bits(&found), bits(&x.index_select(&indices, 0).unwrap()));
    let beyond = Tensor::new(&[5u32], CPU).unwrap();
    let error = super::select_rows(&rows, &beyond).unwrap_err().to_string();
    assert!(error.contains("index 5 is not below the number of rows 5"), "{error}");
}

#[test]
fn silu_mul_gates_the_second_half_by_the_first() {
    let x = (values(1, &[7, 2 * 50]) * 20.0).unwrap();
    let gate = x.narrow(1, 0, 50).unwrap().silu().unwrap();
    let expected = (gate * x.narrow(1, 50, 50).unwrap()).unwrap();
    assert_close(&silu_mul(&x).unwrap(), &expected, 1e-6);
}

#[test]
fn silu_mul_is_right_at_the_ends_and_keeps_not_a_number() {
    let at = |gate: f32| {
        let out = silu_mul(&Tensor::new(&[[gate, 1.0f32]], CPU).unwrap()).unwrap();
        out.to_vec2::<f32>().unwrap()[0][0]
    };
    assert!(at(-1e4).abs() < 1e-30 && at(-100.0).abs() < 1e-30);
    assert!((at(1e4) - 1e4).abs() < 1e-3);
    assert_eq!(at(0.0).to_bits(), 0);
    assert!(at(f32::NAN).is_nan());
    assert!(at(f32::INFINITY).is_infinite());
}

#[test]
fn rope_rotates_pairs_half_a_head_apart() {
    let (head_dim, positions) = (8, [0u32, 1, 300, 41]);
    let frequencies: Vec<f32> = (0..4).map(|i| 10_000f32.powf(-(i as f32) / 4.0)).collect();
    let table = RopeTable::new(&frequencies, 1.0, 301);
    let x = values(1, &[4, 3, head_dim]);
    let found = rope(&x, &Tensor::new(&positions, CPU).unwrap(), &table).unwrap();
    let (x, found) = (x.to_vec3::<f32>().unwrap(), found.to_vec3::<f32>().unwrap());
    for (token, &position) in positions.iter().enumerate() {
        for head in 0..3 {
            for i in 0..4 {
                let (sin, cos) = (f64::from(position) * f64::from(frequencies[i])).sin_cos();
                let (a, b) = (f64::from(x[token][head][i]), f64::from(x[token][head][i + 4]));
                let (a, b) = (a * cos - b * sin, b * cos + a * sin);
                assert!((f64::from(found[token][head][i]) - a).abs() < 1e-4);
                assert!((f64::from(found[token][head][i + 4]) - b).abs() < 1e-4);
            }
        }
    }
}

#[test]
fn rope_leaves_unrotated_elements_and_applies_the_attention_factor() {
    let table = RopeTable::new(&[1.0, 0.1], 2.0, 4);
    let x = values(1, &[2, 1, 7]);
    let positions = Tensor::new(&[0u32, 3], CPU).unwrap();
    let found = rope(&x, &positions, &table).unwrap().to_vec3::<f32>().unwrap();
    let x = x.to_vec3::<f32>().unwrap();
    assert_eq!(found[1][0][4..], x[1][0][4..]);
    let doubled: Vec<f32> = x[0][0][..4].iter().map(|x| 2.0 * x).collect();
    assert_eq!(found[0][0][..4], doubled);
}

#[test]
fn elementwise_rows_do_not_depend_on_their_batch() {
    // Wide enough that threads share the larger batches.
    let (x, weight) = (values(1, &[70, 4500]), values(2, &[4500]));
    assert_batch_invariant(70, |start, len| rms_norm(&x.narrow(0, start, len)?, &weight, 1e-6));
    assert_batch_invariant(70, |start, len| silu_mul(&x.narrow(0, start, len)?));

    let table = RopeTable::new(&[1.0, 0.3, 0.1], 1.0, 100);
    let positions = Tensor::arange(0u32, 70, CPU).unwrap();
    let heads = x.reshape((70, 500, 9)).unwrap();
    assert_batch_invariant(70, |start, len| {
        rope(&heads.narrow(0, start, len)?, &positions.narrow(0, start, len)?, &table)
    });
}

#[test]
fn wrong_inputs_name_the_operation_and_the_shape() {
    let weight = PackedTensor::pack(&values(1, &[10, 4]), WeightType::F32).unwrap();
    let table = RopeTable::new(&[1.0, 0.5], 1.0, 8);
    let x = values(2, &[2, 4]);
    let ids = |ids: &[u32]| Tensor::new(ids, CPU).unwrap();
    let f64s = x.to_dtype(DType::F64).unwrap();
    let cases = [
        (linear(&values(2, &[2, 5]), &weight, None), "linear: x has 5 columns"),
        (linear(&f64s, &weight, None), "activations must be F32: F64"),
        (linear(&x, &weight, Some(&values(3, &[9]))), "linear: bias must be [10]: [9]"),
        (embedding(&ids(&[1, 10]), &weight), "token id 10 is not below the vocabulary size 10"),
        (embedding(&x, &weight), "embedding: ids must be U32: F32"),
        (rms_norm(&x, &values(3, &[5]), 1e-5), "rms_norm: weight must be [4]: [5]"),
        (silu_mul(&values(2, &[2, 5])), "even number of columns: 5"),
        (rope(&values(2, &[2, 1, 4]), &ids(&[0, 8]), &table), "position 8 is not below 8"),
        (rope(&values(2, &[2, 1, 4]), &ids(&[0]), &table), "positions must be [2]: [1]"),
        (rope(&values(2, &[2, 1, 3]), &ids(&[0, 1]), &table), "do not fit a head of 3"),
    ];
    let mut short = Activations::from_tensor(&x).unwrap();
    let x = Activations::from_tensor(&x).unwrap();
    let unit = |result: Result<()>| result.map(|()| ids(&[]));
    let more = [
        (unit(super::add_linear(&x, &weight, None, &mut short)), "[2, 4] cannot take [2, 10]"),
        (
            unit(super::rms_norm_heads(&mut short, 1..3, &values(3, &[2]), 1e-5)),
            "rows of 4 have no heads 1..3 of 2",
        ),
    ];
    for (result, expected) in cases.into_iter().chain(more) {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "`{error}` does not say `{expected}`");
    }
}

#[test]
fn empty_batches_give_empty_results() {
    let weight = PackedTensor::pack(&values(1, &[10, 4]), WeightType::F32).unwrap();
    let none = Tensor::zeros((0, 4), DType::F32, CPU).unwrap();
    assert_eq!(linear(&none, &weight, None).unwrap().dims(), [0, 10]);
    assert_eq!(silu_mul(&none).unwrap().dims(), [0, 2]);
    assert_eq!(rms_norm(&none, &values(1, &[4]), 1e-6).unwrap().dims(), [0, 4]);
    let ids = Tensor::zeros(0, DType::U32, CPU).unwrap();
    assert_eq!(embedding(&ids, &weight).unwrap().dims(), [0, 4]);
}
