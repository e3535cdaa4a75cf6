//! Norms, rotations, gates, tables and copies of rows.

use pinion_kernels::{Activations, Device, PackedTensor, RopeTable, WeightType, ops};

use super::{assert_close, bits, device, ids, rows, tensor};

#[test]
fn norms_are_those_of_the_cpu() {
    let Some(gpu) = device() else { return };
    for (n, width) in [(1, 8), (3, 64), (2, 576), (5, 1000), (2, 4096)] {
        let (x, weight) = (rows(1, n, width), tensor(2, &[width]));
        let expected = ops::rms_norm(&x, &weight, 1e-5).unwrap();
        let found = ops::rms_norm(&x.copy_to(&gpu).unwrap(), &weight, 1e-5).unwrap();
        assert!(!found.is_on_host());
        assert_close(&found, &expected, 1e-6, &format!("{n} rows of {width}"));
    }
    for (heads, dim) in [(0..2, 64), (1..5, 128), (3..4, 40)] {
        let (mut x, weight) = (rows(3, 3, 5 * dim), tensor(4, &[dim]));
        let mut found = x.copy_to(&gpu).unwrap();
        ops::rms_norm_heads(&mut x, heads.clone(), &weight, 1e-6).unwrap();
        ops::rms_norm_heads(&mut found, heads, &weight, 1e-6).unwrap();
        assert_close(&found, &x, 1e-6, &format!("heads of {dim}"));
    }
}

#[test]
fn rotations_are_those_of_the_cpu() {
    let Some(gpu) = device() else { return };
    for (heads, dim, pairs) in [(0..3, 64, 32), (1..3, 128, 64), (0..4, 80, 20)] {
        let frequencies: Vec<f32> = (0..pairs).map(|i| 0.9f32.powi(i)).collect();
        let table = RopeTable::new(&frequencies, 1.25, 5000);
        let mut x = rows(5, 4, 4 * dim);
        let positions = ids(&[0, 7, 4999, 300]);
        let mut found = x.copy_to(&gpu).unwrap();
        ops::rope(&mut x, (heads.clone(), dim), &positions, &table).unwrap();
        ops::rope(&mut found, (heads, dim), &positions, &table).unwrap();
        assert!(bits(&found) == bits(&x), "heads of {dim}");
    }
}

#[test]
fn gates_and_copies_are_those_of_the_cpu() {
    let Some(gpu) = device() else { return };
    for (n, width) in [(1, 2), (3, 66), (7, 3072)] {
        let x = rows(6, n, width);
        let expected = ops::silu_mul(&x).unwrap();
        let found = ops::silu_mul(&x.copy_to(&gpu).unwrap()).unwrap();
        assert_close(&found, &expected, 1e-6, &format!("{n} rows of {width}"));
    }
    let (x, y) = (rows(7, 4, 30), rows(8, 4, 5));
    let picked = ids(&[3, 0, 3]);
    let expected = ops::select_rows(&x, &picked).unwrap();
    let found = ops::select_rows(&x.copy_to(&gpu).unwrap(), &picked).unwrap();
    assert_eq!(bits(&found), bits(&expected));
    assert!(ops::select_rows(&x.copy_to(&gpu).unwrap(), &ids(&[4])).is_err());
    let parts = [x.copy_to(&gpu).unwrap(), y.copy_to(&gpu).unwrap()];
    let found = Activations::beside(&parts).unwrap();
    assert_eq!(bits(&found), bits(&Activations::beside(&[x, y]).unwrap()));
}

#[test]
fn tables_of_every_type_give_their_rows() {
    let Some(gpu) = device() else { return };
    for &kind in WeightType::ALL {
        for cols in [32, 96, 288, 576] {
            let table = PackedTensor::pack(&tensor(9, &[70, cols]), kind).unwrap();
            let wanted = ids(&[0, 69, 17, 17, 33]);
            let expected = ops::embedding(&wanted, &table).unwrap();
            let table = gpu.place(table).unwrap();
            let found = ops::embedding(&wanted, &table).unwrap();
            assert!(bits(&found) == bits(&expected), "{kind} with {cols} columns");
            assert!(ops::embedding(&ids(&[70]), &table).is_err());
        }
    }
}

#[test]
fn operations_without_a_kernel_refuse_rows_of_a_device() {
    let Some(gpu) = device() else { return };
    let x = rows(1, 1, 4).copy_to(&gpu).unwrap();
    let read = std::panic::AssertUnwindSafe(|| x.values().len());
    let refused = std::panic::catch_unwind(read);
    assert!(refused.is_err());
    let weight = PackedTensor::pack(&tensor(1, &[4, 4]), WeightType::F32).unwrap();
    assert!(ops::linear(&x, &weight, None).is_err(), "weights on the host");
    let weight = gpu.place(weight).unwrap();
    assert!(ops::linear(&rows(1, 1, 4), &weight, None).is_err(), "activations on the host");
    assert!(weight.unpack().is_err());
    assert_eq!(Device::Cpu.free_memory().unwrap(), None);
}
