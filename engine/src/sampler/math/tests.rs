//! Tests of `sampler::math`.

use super::{argmax, exp, is_usable, log_sum_exp};

#[test]
fn exp_is_within_a_few_units_of_the_exact_value() {
    assert_eq!((exp(0.0), exp(-87.5), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    let mut worst = 0.0f64;
    for i in 0..87_000 {
        let x = -(i as f32) * 0.001;
        let exact = f64::from(x).exp();
        worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
    }
    assert!(worst < 3.0 * f64::from(f32::EPSILON), "{worst:e}");
}

#[test]
fn exp_never_falls_where_its_argument_rises_by_more_than_rounding() {
    let values: Vec<f32> = (0..80_000).map(|i| exp(-80.0 + i as f32 * 0.001)).collect();
    assert!(values.is_sorted());
}

#[test]
fn rows_are_summed_and_searched() {
    assert_eq!(argmax(&[1.0, 3.0, 3.0, f32::NEG_INFINITY]), 1);
    assert!((log_sum_exp(&[0.0, 0.0, 0.0, 0.0]) - 4.0f64.ln()).abs() < 1e-12);
    assert!((log_sum_exp(&[1000.0, f32::NEG_INFINITY]) - 1000.0).abs() < 1e-12);
    assert!(is_usable(&[0.0, f32::NEG_INFINITY]) && !is_usable(&[0.0, f32::NAN]));
    assert!(!is_usable(&[]) && !is_usable(&[f32::NEG_INFINITY]));
}
