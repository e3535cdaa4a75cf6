//! The CUDA kernels against the operations of the CPU: on a GPU where there is one, and else as host code, thread by
//! thread.
//!
//! Without a GPU they need a C++ compiler; without either they say so and prove nothing.
#![cfg(test)]

mod attention;
mod linear;
mod rows;
mod sample;

use candle_core::{Device as Host, Tensor};
use pinion_kernels::{Activations, Device, Gpu};

/// A GPU, or its emulation; none on a machine without either.
fn device() -> Option<Device> {
    Gpu::for_tests().map(Device::Gpu)
}

/// Deterministic values between -1 and 1.
fn values(seed: usize, len: usize) -> Vec<f32> {
    let mut state = seed as u64 * 0x9e37_79b9 + 1;
    let next = std::iter::repeat_with(move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    });
    next.take(len).collect()
}

fn tensor(seed: usize, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values(seed, shape.iter().product()), shape, &Host::Cpu).unwrap()
}

fn rows(seed: usize, rows: usize, width: usize) -> Activations {
    Activations::from_tensor(&tensor(seed, &[rows, width])).unwrap()
}

fn ids(values: &[u32]) -> Tensor {
    Tensor::new(values, &Host::Cpu).unwrap()
}

fn on_host(x: &Activations) -> Vec<f32> {
    x.copy_to(&Device::Cpu).unwrap().values().to_vec()
}

fn bits(x: &Activations) -> Vec<u32> {
    on_host(x).into_iter().map(f32::to_bits).collect()
}

/// Both are the same up to `tolerance` times the greatest value.
#[track_caller]
fn assert_close(found: &Activations, expected: &Activations, tolerance: f32, what: &str) {
    assert_eq!((found.rows(), found.width()), (expected.rows(), expected.width()), "{what}");
    let greatest = expected.values().iter().fold(1e-3f32, |most, x| most.max(x.abs()));
    for (index, (x, y)) in on_host(found).iter().zip(expected.values()).enumerate() {
        let off = (x - y).abs();
        assert!(off <= tolerance * greatest, "{what}: value {index} is {x}, expected {y}");
    }
}
