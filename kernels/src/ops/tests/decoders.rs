//! Operations that only some decoders need, each against plain tensor arithmetic or a loop.

use candle_core::{D, DType, Result, Tensor};

use super::{CPU, assert_batch_invariant, assert_close, bits, values};
use crate::ops::{self, Gelu, GroupWeight, RouterGroups, RouterParams, Scoring};
use crate::{Activations, PackedTensor, WeightType};

fn rows(x: &Tensor) -> Activations {
    Activations::from_tensor(x).unwrap()
}

/// Runs an operation that changes its argument.
fn changed(x: &Tensor, run: impl FnOnce(&mut Activations)) -> Tensor {
    let mut x = rows(x);
    run(&mut x);
    x.into_tensor().unwrap()
}

#[test]
fn gelu_is_that_of_candle_in_both_forms() {
    let x = (values(1, &[9, 130]) * 6.0).unwrap();
    let up = values(2, &[9, 130]);
    for (kind, expected) in [(Gelu::Exact, x.gelu_erf()), (Gelu::Tanh, x.gelu())] {
        let expected = expected.unwrap();
        assert_close(&changed(&x, |x| ops::gelu(x, kind)), &expected, 1e-6);
        let gate_up = rows(&Tensor::cat(&[&x, &up], 1).unwrap());
        let found = ops::gelu_mul(&gate_up, kind).unwrap().into_tensor().unwrap();
        assert_close(&found, &(&expected * &up).unwrap(), 1e-6);
    }
    let odd = rows(&values(1, &[2, 5]));
    assert!(ops::gelu_mul(&odd, Gelu::Tanh).is_err());
}

#[test]
fn layer_norm_is_its_formula() {
    let (x, weight, bias) = (values(1, &[7, 67]), values(2, &[67]), values(3, &[67]));
    let x = (x + 0.7).unwrap();
    let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1).unwrap()).unwrap();
    let variance = centered.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    let scaled = centered.broadcast_div(&(variance + 1e-3).unwrap().sqrt().unwrap()).unwrap();
    let expected = scaled.broadcast_mul(&weight).unwrap().broadcast_add(&bias).unwrap();
    let found = ops::layer_norm(&rows(&x), &weight, &bias, 1e-3).unwrap().into_tensor().unwrap();
    assert_close(&found, &expected, 1e-6);
    assert!(ops::layer_norm(&rows(&x), &values(1, &[66]), &bias, 1e-3).is_err());
}

#[test]
fn soft_caps_sums_and_gates_are_their_formulas() {
    let (x, y) = ((values(1, &[5, 70]) * 90.0).unwrap(), values(2, &[5, 70]));
    let expected = ((&x / 30.0).unwrap().tanh().unwrap() * 30.0).unwrap();
    assert_close(&changed(&x, |x| ops::soft_cap(x, 30.0)), &expected, 1e-6);
    let expected = (&x + (&y * 0.25).unwrap()).unwrap();
    let found = changed(&x, |x| ops::add_scaled(x, &rows(&y), 0.25).unwrap());
    assert_close(&found, &expected, 1e-6);
    assert_close(&changed(&x, |x| ops::scale(x, 0.3)), &(&x * 0.3).unwrap(), 1e-6);
    let gates = values(3, &[5, 1]);
    let sigmoid = (gates.neg().unwrap().exp().unwrap() + 1.0).unwrap().recip().unwrap();
    let found = changed(&x, |x| ops::scale_by_sigmoid(x, &rows(&gates)).unwrap());
    assert_close(&found, &x.broadcast_mul(&sigmoid).unwrap(), 1e-6);
    assert!(ops::add_scaled(&mut rows(&x), &rows(&gates), 1.0).is_err());
    assert!(ops::scale_by_sigmoid(&mut rows(&x), &rows(&y)).is_err());
}

#[test]
fn clamped_swiglu_is_its_formula() {
    let (gate, up) = ((values(1, &[4, 33]) * 9.0).unwrap(), (values(2, &[4, 33]) * 9.0).unwrap());
    let found = ops::clamped_swiglu(&rows(&Tensor::cat(&[&gate, &up], 1).unwrap()), 1.7, 5.0);
    let (gate, up) = (gate.minimum(5.0).unwrap(), up.clamp(-5f32, 5f32).unwrap());
    let swish = (&gate / ((&gate * -1.7).unwrap().exp().unwrap() + 1.0).unwrap()).unwrap();
    let expected = (swish * (up + 1.0).unwrap()).unwrap();
    assert_close(&found.unwrap().into_tensor().unwrap(), &expected, 1e-6);
}

#[test]
fn norms_of_columns_leave_the_others_alone() {
    let (x, weight) = (values(1, &[3, 50]), values(2, &[10]));
    let found = changed(&x, |x| ops::rms_norm_columns(x, 20..40, &weight, 1e-5).unwrap());
    let part = |x: &Tensor, first: usize, len: usize| x.narrow(1, first, len).unwrap();
    assert_eq!(bits(&part(&found, 0, 20)), bits(&part(&x, 0, 20)));
    assert_eq!(bits(&part(&found, 40, 10)), bits(&part(&x, 40, 10)));
    for first in [20, 30] {
        let run = rows(&part(&x, first, 10));
        let expected = ops::rms_norm(&run, &weight, 1e-5).unwrap().into_tensor().unwrap();
        assert_close(&part(&found, first, 10), &expected, 1e-6);
    }
    assert!(ops::rms_norm_columns(&mut rows(&x), 45..55, &weight, 1e-5).is_err());
    assert!(ops::rms_norm_columns(&mut rows(&x), 0..15, &weight, 1e-5).is_err());
}

const ROUTER: RouterParams = RouterParams {
    scoring: Scoring::Softmax,
    top_k: 2,
    bias: None,
    groups: None,
    normalize: false,
    scale: 1.0,
};

/// What a token gets of experts that multiply it by their numbers.
fn routed(logits: &[f32], params: &RouterParams) -> (Vec<usize>, f32) {
    let logits = Tensor::new(logits, CPU).unwrap().unsqueeze(0).unwrap();
    let routes = ops::route(&rows(&logits), params).unwrap();
    let one = rows(&Tensor::new(&[[1f32]], CPU).unwrap());
    let starts = [0].into_iter().chain(routes.ends().iter().copied());
    let chosen: Vec<_> = starts
        .zip(routes.ends())
        .enumerate()
        .flat_map(|(expert, (start, &end))| std::iter::repeat_n(expert, end - start))
        .collect();
    let results: Vec<f32> = chosen.iter().map(|&expert| expert as f32 + 1.0).collect();
    let results = Tensor::from_vec(results, (chosen.len(), 1), CPU).unwrap();
    let mut sums = rows(&Tensor::new(&[[0f32]], CPU).unwrap());
    assert_eq!(routes.gather(&one).unwrap().rows(), chosen.len());
    routes.add_to(&mut sums, &rows(&results)).unwrap();
    (chosen, sums.values()[0])
}

#[test]
fn routers_choose_as_their_parameters_say() {
    let close = |found: (Vec<usize>, f32), chosen: &[usize], sum: f32| {
        assert_eq!(found.0, chosen);
        assert!((found.1 - sum).abs() < 1e-5, "{} is not {sum}", found.1);
    };
    let logits = [1f32, 3.0, 2.0, 3.0];
    let e = |x: f32| x.exp() / (1f32.exp() + 2.0 * 3f32.exp() + 2f32.exp());
    close(routed(&logits, &ROUTER), &[1, 3], e(3.0) * (2.0 + 4.0));
    let normalized = RouterParams { normalize: true, top_k: 3, scale: 2.0, ..ROUTER };
    let all = 2.0 * e(3.0) + e(2.0);
    let sum = 2.0 * (e(3.0) * 6.0 + e(2.0) * 3.0) / all;
    close(routed(&logits, &normalized), &[1, 2, 3], sum);
    // The first of equals, and a bias that chooses but does not weigh.
    close(routed(&[0.0; 4], &ROUTER), &[0, 1], 0.25 * 3.0);
    let bias = Some(vec![0.0, 0.0, 0.0, 9.0]);
    let biased = RouterParams { scoring: Scoring::Sigmoid, top_k: 1, bias, ..ROUTER };
    close(routed(&[0.0; 4], &biased), &[3], 0.5 * 4.0);
    // The best two of the left group beat the best one of the right group.
    let groups = |best| Some(RouterGroups { count: 2, kept: 1, best });
    let limited = |best| RouterParams { scoring: Scoring::Sigmoid, groups: groups(best), ..ROUTER };
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let logits = [1f32, 1.0, 2.0, -9.0];
    close(routed(&logits, &limited(2)), &[0, 1], sigmoid(1.0) * 3.0);
    close(routed(&logits, &limited(1)), &[2, 3], sigmoid(2.0) * 3.0 + sigmoid(-9.0) * 4.0);
    assert_eq!(routed(&[f32::NAN; 4], &ROUTER).0, [0, 1]);
}

#[test]
fn routers_that_cannot_be_are_refused() {
    let groups = |count, kept| Some(RouterGroups { count, kept, best: 2 });
    for params in [
        RouterParams { top_k: 0, ..ROUTER },
        RouterParams { top_k: 7, ..ROUTER },
        RouterParams { bias: Some(vec![0.0; 5]), ..ROUTER },
        RouterParams { groups: groups(0, 0), ..ROUTER },
        RouterParams { groups: groups(4, 1), ..ROUTER },
        RouterParams { groups: groups(6, 1), ..ROUTER },
        RouterParams { top_k: 3, groups: groups(3, 1), ..ROUTER },
    ] {
        assert!(params.check(6).is_err(), "{params:?}");
    }
}

fn groups(kind: WeightType, count: usize, shape: [usize; 2]) -> Vec<GroupWeight> {
    let group = |seed| GroupWeight {
        weight: PackedTensor::pack(&values(seed, &shape), kind).unwrap(),
        bias: (seed % 2 == 0).then(|| values(seed + 50, &shape[..1])),
    };
    (0..count).map(group).collect()
}

#[test]
fn grouped_linears_are_linears_of_their_rows() {
    for &kind in WeightType::ALL {
        let groups = groups(kind, 4, [70, 96]);
        let x = values(9, &[40, 96]);
        let ends = [3, 3, 33, 40];
        let found = ops::grouped_linear(&rows(&x), &ends, &groups).unwrap().into_tensor().unwrap();
        let mut start = 0;
        for (group, end) in groups.iter().zip(ends) {
            if start < end {
                let x = rows(&x.narrow(0, start, end - start).unwrap());
                let expected = ops::linear(&x, &group.weight, group.bias.as_ref()).unwrap();
                let found = found.narrow(0, start, end - start).unwrap();
                assert_eq!(bits(&found), bits(&expected.into_tensor().unwrap()), "{kind}");
            }
            start = end;
        }
        for bad in [&[3, 3, 33][..], &[3, 3, 33, 39], &[3, 2, 33, 40]] {
            assert!(ops::grouped_linear(&rows(&x), bad, &groups).is_err());
        }
    }
}

#[test]
fn linears_of_heads_are_linears_of_their_columns() {
    for &kind in WeightType::ALL {
        let heads: Vec<_> = groups(kind, 3, [20, 32]).into_iter().map(|g| g.weight).collect();
        let x = values(9, &[40, 5 + 3 * 36]);
        let found = ops::linear_heads(&rows(&x), (5, 36), &heads).unwrap().into_tensor().unwrap();
        for (head, weight) in heads.iter().enumerate() {
            let x = rows(&x.narrow(1, 5 + head * 36, 32).unwrap());
            let expected = ops::linear(&x, weight, None).unwrap().into_tensor().unwrap();
            let found = found.narrow(1, head * 20, 20).unwrap();
            assert_eq!(bits(&found), bits(&expected), "{kind}");
        }
        assert!(ops::linear_heads(&rows(&x), (10, 36), &heads).is_err());
    }
}

/// A block of experts over some of the rows of a larger batch.
fn experts(x: &Tensor, kind: WeightType) -> Result<Tensor> {
    let router = PackedTensor::pack(&values(70, &[6, 96]), WeightType::F32)?;
    let x = Activations::from_tensor(x)?;
    let params = RouterParams { normalize: true, ..ROUTER };
    let routes = ops::route(&ops::linear(&x, &router, None)?, &params)?;
    let h = ops::grouped_linear(&routes.gather(&x)?, routes.ends(), &groups(kind, 6, [64, 96]))?;
    let mut sums = Activations::from_tensor(&Tensor::zeros((x.rows(), 64), DType::F32, CPU)?)?;
    routes.add_to(&mut sums, &h)?;
    sums.into_tensor()
}

#[test]
fn a_tokens_experts_do_not_depend_on_its_neighbours() {
    let x = values(11, &[70, 96]);
    for kind in [WeightType::F32, WeightType::Bf16, WeightType::Q4K] {
        assert_batch_invariant(70, |start, len| experts(&x.narrow(0, start, len)?, kind));
    }
}

#[test]
fn rows_of_other_operations_do_not_depend_on_their_neighbours() {
    let (x, weight, bias) = (values(12, &[70, 96]), values(13, &[96]), values(14, &[96]));
    assert_batch_invariant(70, |start, len| {
        let mut x = Activations::from_tensor(&x.narrow(0, start, len)?)?;
        x = ops::layer_norm(&x, &weight, &bias, 1e-5)?;
        ops::gelu(&mut x, Gelu::Exact);
        x = ops::gelu_mul(&x, Gelu::Tanh)?;
        x = ops::clamped_swiglu(&x, 1.7, 5.0)?;
        ops::soft_cap(&mut x, 0.5);
        x.into_tensor()
    });
}

#[test]
fn heads_go_beside_one_another_and_columns_apart() {
    let (a, b) = (values(1, &[3, 4]), values(2, &[3, 6]));
    let (a, b) = (rows(&a), rows(&b));
    let all = Activations::beside_by_head(&[&a, &b], 2).unwrap();
    for row in 0..3 {
        let expected = [
            &a.values()[row * 4..][..2],
            &b.values()[row * 6..][..3],
            &a.values()[row * 4 + 2..][..2],
            &b.values()[row * 6 + 3..][..3],
        ];
        assert_eq!(all.values()[row * 10..][..10], expected.concat());
        let columns = all.columns(2..5).unwrap();
        assert_eq!(columns.values()[row * 3..][..3], b.values()[row * 6..][..3]);
    }
    assert!(Activations::beside_by_head(&[&a, &b], 4).is_err());
    assert!(all.columns(9..11).is_err());
}
