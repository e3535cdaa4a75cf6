//! Products with weights of every type.

use pinion_kernels::{PackedTensor, WeightType, ops};

use super::{assert_close, bits, device, rows, tensor};

/// How far sums in another order may be away, relative to the greatest result; bf16 weights meet the
/// activations as two bf16.
fn tolerance(kind: WeightType) -> f32 {
    if kind == WeightType::Bf16 { 3e-5 } else { 3e-6 }
}

#[test]
fn products_are_those_of_the_cpu() {
    let Some(gpu) = device() else { return };
    for &kind in WeightType::ALL {
        for (out_dim, in_dim) in [(1, 32), (17, 64), (64, 96), (130, 288), (40, 2080)] {
            let weight = PackedTensor::pack(&tensor(1, &[out_dim, in_dim]), kind).unwrap();
            let placed = gpu.place(weight.clone()).unwrap();
            for n in [1, 3, 8, 9, 20, 33, 70] {
                let x = rows(n, n, in_dim);
                let on_gpu = x.copy_to(&gpu).unwrap();
                let what = format!("{kind} [{out_dim}, {in_dim}] times {n}");
                let expected = ops::linear(&x, &weight, None).unwrap();
                let found = ops::linear(&on_gpu, &placed, None).unwrap();
                assert_close(&found, &expected, tolerance(kind), &what);

                let bias = tensor(3, &[out_dim]);
                let mut expected = rows(4, n, out_dim);
                let mut found = expected.copy_to(&gpu).unwrap();
                ops::add_linear(&x, &weight, Some(&bias), &mut expected).unwrap();
                ops::add_linear(&on_gpu, &placed, Some(&bias), &mut found).unwrap();
                assert_close(&found, &expected, tolerance(kind), &format!("{what}, added"));
            }
        }
    }
}

#[test]
fn odd_columns_are_padded_with_nothing() {
    let Some(gpu) = device() else { return };
    for &kind in WeightType::DENSE {
        for in_dim in [1, 7, 33, 50] {
            let weight = PackedTensor::pack(&tensor(1, &[20, in_dim]), kind).unwrap();
            let x = rows(2, 5, in_dim);
            let expected = ops::linear(&x, &weight, None).unwrap();
            let placed = gpu.place(weight).unwrap();
            let found = ops::linear(&x.copy_to(&gpu).unwrap(), &placed, None).unwrap();
            assert_close(&found, &expected, tolerance(kind), &format!("{kind} of {in_dim}"));
        }
    }
}

#[test]
fn a_row_is_the_same_alone_and_among_others() {
    let Some(gpu) = device() else { return };
    for &kind in WeightType::ALL {
        let (out_dim, in_dim) = (50, 544);
        let weight = PackedTensor::pack(&tensor(1, &[out_dim, in_dim]), kind).unwrap();
        let placed = gpu.place(weight).unwrap();
        let all = rows(2, 70, in_dim);
        for n in [8, 9, 16, 17, 32, 33, 64, 70] {
            let first = values_of(&all, n);
            let together =
                bits(&ops::linear(&first.copy_to(&gpu).unwrap(), &placed, None).unwrap());
            for row in [0, n / 2, n - 1] {
                let one = row_of(&all, row).copy_to(&gpu).unwrap();
                let alone = bits(&ops::linear(&one, &placed, None).unwrap());
                let part = &together[row * out_dim..][..out_dim];
                assert!(alone == part, "{kind}: row {row} of {n}");
            }
        }
    }
}

#[test]
fn a_row_with_nan_becomes_nan_and_no_other_does() {
    let Some(gpu) = device() else { return };
    for &kind in WeightType::ALL {
        let placed = PackedTensor::pack(&tensor(1, &[24, 64]), kind).unwrap();
        let placed = gpu.place(placed).unwrap();
        let mut values = super::values(5, 3 * 64);
        values[64 + 7] = f32::NAN;
        let x = candle_core::Tensor::from_vec(values, (3, 64), &candle_core::Device::Cpu).unwrap();
        let x = pinion_kernels::Activations::from_tensor(&x).unwrap().copy_to(&gpu).unwrap();
        let found = super::on_host(&ops::linear(&x, &placed, None).unwrap());
        let is_nan: Vec<bool> =
            found.chunks(24).map(|row| row.iter().all(|x| x.is_nan())).collect();
        assert_eq!(is_nan, [false, true, false], "{kind}");
    }
}

fn values_of(all: &pinion_kernels::Activations, n: usize) -> pinion_kernels::Activations {
    let indices: Vec<u32> = (0..n as u32).collect();
    ops::select_rows(all, &super::ids(&indices)).unwrap()
}

fn row_of(all: &pinion_kernels::Activations, row: usize) -> pinion_kernels::Activations {
    ops::select_rows(all, &super::ids(&[row as u32])).unwrap()
}
