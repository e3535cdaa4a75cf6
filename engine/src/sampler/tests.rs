//! Tests of `sampler`.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Row, Sampler, filter};
use crate::policy::Place;
use crate::{
    Request, RequestId, RouteClass, SampledToken, SamplingParams, Sequence, SequenceError,
};

fn sequence(prompt: &[u32], output: &[u32], sampling: SamplingParams) -> Sequence {
    let base = Request::greedy(RequestId(0), prompt.to_vec(), 100);
    let request = Request { sampling, ..base };
    let mut seq = Sequence::new(request, Place::new(RouteClass::Default, 0));
    output.iter().for_each(|&token| seq.push(token));
    seq
}

fn row(seq: &Sequence) -> Row<'_> {
    Row::last(seq)
}

fn at_temperature(temperature: f32) -> SamplingParams {
    SamplingParams { temperature, ..SamplingParams::greedy() }
}

fn sample(seq: &Sequence, logits: &[f32]) -> Result<SampledToken, SequenceError> {
    Sampler::default().sample(&[row(seq)], logits, logits.len()).remove(0)
}

fn pick(params: &SamplingParams, logits: &[f32]) -> u32 {
    sample(&sequence(&[0], &[], params.clone()), logits).unwrap().id
}

/// What `draw` should do, written as one would on paper.
fn probabilities(params: &SamplingParams, logits: &[f32]) -> BTreeMap<u32, f64> {
    let scaled = logits.iter().map(|&logit| f64::from(logit) / f64::from(params.temperature));
    let mut all: Vec<(u32, f64)> = (0..).zip(scaled).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(params.top_k.unwrap_or(usize::MAX));
    let max = all[0].1;
    all.iter_mut().for_each(|(_, value)| *value = (*value - max).exp());
    let total: f64 = all.iter().map(|(_, value)| value).sum();
    let mut sum = 0.0;
    let is_first = |sum: f64| sum == 0.0;
    all.retain(|(_, value)| {
        let is_kept = is_first(sum) || sum < f64::from(params.top_p) * total;
        sum += value;
        is_kept
    });
    all.retain(|(_, value)| f64::from(params.min_p) <= *value);
    let total: f64 = all.iter().map(|(_, value)| value).sum();
    all.into_iter().map(|(id, value)| (id, value / total)).collect()
}

/// Draws many times as `params` says, and compares with the `expected` probabilities.
fn fits(params: &SamplingParams, logits: &[f32], expected: &BTreeMap<u32, f64>) -> bool {
    const NUM_DRAWS: usize = 20_000;
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    let mut seq = sequence(&[0], &[], params.clone());
    let mut sampler = Sampler::default();
    for seed in 0..NUM_DRAWS as u64 {
        // Half of the draws vary the seed, half the position.
        if seed % 2 == 0 {
            seq.request.sampling.seed = seed;
        } else {
            seq.push(0);
        }
        *counts
            .entry(sampler.sample(&[row(&seq)], logits, logits.len()).remove(0).unwrap().id)
            .or_default() += 1;
    }
    if !counts.keys().all(|id| expected.contains_key(id)) {
        return false;
    }
    let terms = expected.iter().map(|(id, probability)| {
        let mean = probability * NUM_DRAWS as f64;
        (counts.get(id).copied().unwrap_or(0) as f64 - mean).powi(2) / mean
    });
    // Mean and four deviations of the chi-square distribution; with fixed seeds it holds or not.
    let freedom = (expected.len() - 1) as f64;
    terms.sum::<f64>() < freedom + 4.0 * (2.0 * freedom).sqrt()
}

const LOGITS: [f32; 9] = [1.0, 0.5, -0.5, 2.0, 2.0, 0.0, -1.0, 1.5, 0.25];

#[test]
fn draws_follow_the_exact_probabilities() {
    let base = at_temperature(1.0);
    let cases = [
        base.clone(),
        at_temperature(0.5),
        at_temperature(3.0),
        SamplingParams { top_k: Some(4), ..base.clone() },
        SamplingParams { top_p: 0.7, ..base.clone() },
        SamplingParams { min_p: 0.3, ..base },
        SamplingParams { top_k: Some(6), top_p: 0.9, min_p: 0.15, ..at_temperature(1.7) },
    ];
    for params in cases {
        assert!(fits(&params, &LOGITS, &probabilities(&params, &LOGITS)), "{params:?}");
    }
}

#[test]
fn the_comparison_of_draws_notices_a_small_difference() {
    let expected = probabilities(&at_temperature(1.0), &LOGITS);
    assert!(!fits(&at_temperature(1.05), &LOGITS, &expected));
    let without_last = SamplingParams { top_k: Some(8), ..at_temperature(1.0) };
    assert!(!fits(&without_last, &LOGITS, &expected));
}

/// The answers are those of a Philox and a race written apart from these, in Python.
#[test]
fn draws_of_a_seed_never_change() {
    let draw = |seed| {
        let params = SamplingParams { seed, ..at_temperature(1.0) };
        let mut seq = sequence(&[0, 0, 0], &[], params);
        let mut text = Vec::new();
        for _ in 0..24 {
            let id = sample(&seq, &LOGITS).unwrap().id;
            seq.push(id);
            text.push(id.to_string());
        }
        text.concat()
    };
    insta::assert_snapshot!(draw(0), @"835445733354444547330334");
    insta::assert_snapshot!(draw(u64::MAX), @"373474077344167344474447");
}

#[test]
fn greedy_takes_the_first_of_the_best() {
    assert_eq!(pick(&SamplingParams::greedy(), &LOGITS), 3);
    assert_eq!(pick(&SamplingParams::greedy(), &[f32::NEG_INFINITY, -3.0, -3.0]), 1);
    let biased = SamplingParams { logit_bias: vec![(8, 2.0)], ..SamplingParams::greedy() };
    assert_eq!(pick(&biased, &LOGITS), 8);
}

#[test]
fn filters_that_leave_one_token_are_greedy() {
    let base = at_temperature(2.0);
    for params in [
        SamplingParams { top_k: Some(1), ..base.clone() },
        SamplingParams { top_p: 0.0, ..base.clone() },
        SamplingParams { top_p: 1e-6, ..base.clone() },
        at_temperature(1e-6),
    ] {
        for seed in 0..50 {
            let params = SamplingParams { seed, ..params.clone() };
            // Two tokens share the best logit; without a tie-break temperature cannot choose.
            let is_tie_kept = params.top_k.is_none() && 0.5 < params.top_p;
            let id = pick(&params, &LOGITS);
            assert!(id == 3 || (is_tie_kept && id == 4), "{id} {params:?}");
        }
    }
    let min_p = SamplingParams { min_p: 1.0, ..base };
    let picked: BTreeSet<u32> =
        (0..50).map(|seed| pick(&SamplingParams { seed, ..min_p.clone() }, &LOGITS)).collect();
    assert_eq!(picked, BTreeSet::from([3, 4]), "as probable as the most probable one is enough");
}

#[test]
fn impossible_tokens_are_never_drawn() {
    let logits = [0.0, f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
    for seed in 0..200 {
        let params = SamplingParams { seed, ..at_temperature(100.0) };
        assert_eq!(pick(&params, &logits) % 2, 0);
        assert_eq!(pick(&SamplingParams { top_p: 0.99, ..params }, &logits) % 2, 0);
    }
}

#[test]
fn penalties_count_as_openai_and_hf_do() {
    let logits = [2.0, 2.0, -2.0, -2.0, 1.0, 1.0];
    let params = SamplingParams {
        repetition_penalty: 2.0,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        logit_bias: vec![(5, 3.0), (0, 1.0)],
        ..SamplingParams::greedy()
    };
    // 0 and 2 are in the prompt, 2 is also in the output, 1 is there twice and 3 once.
    let seq = sequence(&[0, 2, 0], &[1, 3, 1, 2], params);
    let mut processed = logits;
    row(&seq).process(&mut processed);
    let expected = [
        3.0 / 2.0,
        2.0 / 2.0 - 2.0 * 0.25 - 0.5,
        -2.0 * 2.0 - 0.25 - 0.5,
        -2.0 * 2.0 - 0.25 - 0.5,
        1.0,
        1.0 + 3.0,
    ];
    assert_eq!(processed.map(f32::to_bits), expected.map(f32::to_bits));
}

#[test]
fn penalties_survive_what_a_sequence_goes_through() {
    let params = SamplingParams { frequency_penalty: 0.5, ..SamplingParams::greedy() };
    let mut seq = sequence(&[0], &[], params);
    let mut sampler = Sampler::default();
    let logits = [1.0, 0.8, 0.1];
    let picked: Vec<u32> = (0..6)
        .map(|_| {
            let id = sampler.sample(&[row(&seq)], &logits, 3).remove(0).unwrap().id;
            seq.push(id);
            id
        })
        .collect();
    // 1.0 0.8 0.1 | 0.5 0.8 | 0.5 0.3 | 0.0 0.3 | 0.0 -0.2 0.1 | 0.0 -0.2 -0.4
    assert_eq!(picked, [0, 1, 0, 1, 2, 0]);
}

#[test]
fn end_tokens_wait_for_min_tokens() {
    let mut seq = sequence(&[0], &[], SamplingParams::greedy());
    seq.request.stop.min_tokens = 2;
    seq.request.stop.eos_token_ids = vec![1];
    seq.request.stop.stop_token_ids = vec![2];
    let logits = [0.0, 9.0, 8.0, 1.0];
    let mut picked = Vec::new();
    for _ in 0..3 {
        let id = sample(&seq, &logits).unwrap().id;
        seq.push(id);
        picked.push(id);
    }
    assert_eq!(picked, [3, 3, 1]);
    let all = [f32::NEG_INFINITY, 9.0, 8.0, f32::NEG_INFINITY];
    seq.request.stop.min_tokens = 9;
    assert_eq!(sample(&seq, &all), Err(SequenceError::NonFiniteLogits { position: 4 }));
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    for params in [SamplingParams::greedy(), at_temperature(1.0)] {
        let seq = sequence(&[0, 0], &[1], params);
        let error = Err(SequenceError::NonFiniteLogits { position: 3 });
        for bad in [
            [0.0, f32::NAN, 1.0],
            [f32::NAN, 0.0, 1.0],
            [0.0, f32::INFINITY, 1.0],
            [f32::NEG_INFINITY; 3],
        ] {
            assert_eq!(sample(&seq, &bad), error, "{bad:?}");
        }
        assert!(sample(&seq, &[f32::NEG_INFINITY, -1e30, f32::NEG_INFINITY]).is_ok());
    }
}

#[test]
fn a_drafted_token_counts_as_one_of_the_output() {
    let params = SamplingParams {
        repetition_penalty: 1.3,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        seed: 9,
        ..at_temperature(1.0)
    };
    let mut seq = sequence(&[0, 2, 0], &[1, 3, 1], params);
    seq.request.stop.min_tokens = 6;
    seq.request.stop.eos_token_ids = vec![4];
    seq.request.logprobs = Some(2);
    let draft = [2, 5, 5, 1];
    seq.draft = draft.to_vec();
    for num_drafted in 0..=draft.len() {
        let mut plain = sequence(&[0, 2, 0], &[1, 3, 1], seq.request.sampling.clone());
        plain.request = seq.request.clone();
        draft[..num_drafted].iter().for_each(|&token| plain.push(token));
        for seed in 0..20 {
            plain.request.sampling.seed = seed;
            seq.request.sampling.seed = seed;
            let drafted = Row { seq: &seq, position: seq.token_ids.len() + num_drafted };
            let sampled = Sampler::default().sample(&[drafted], &LOGITS, LOGITS.len()).remove(0);
            assert_eq!(sampled, sample(&plain, &LOGITS), "{num_drafted} {seed}");
        }
    }
}

#[test]
fn processed_log_probabilities_are_of_what_is_drawn_from() {
    let params = SamplingParams {
        logit_bias: vec![(6, 1.0)],
        processed_logprobs: true,
        ..at_temperature(0.5)
    };
    let mut seq = sequence(&[0], &[], params);
    seq.request.logprobs = Some(9);
    let mut biased = LOGITS;
    biased[6] += 1.0;
    let exact = probabilities(&at_temperature(0.5), &biased);
    let token = sample(&seq, &LOGITS).unwrap();
    assert!(
        token.top.iter().all(|one| (f64::from(one.logprob) - exact[&one.id].ln()).abs() < 1e-5)
    );
    seq.request.sampling.temperature = 0.0;
    let exact = probabilities(&at_temperature(1.0), &biased);
    let token = sample(&seq, &LOGITS).unwrap();
    assert!((f64::from(token.logprob.unwrap()) - exact[&token.id].ln()).abs() < 1e-5);
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let params =
        SamplingParams { logit_bias: vec![(6, 50.0)], top_k: Some(1), ..at_temperature(0.3) };
    let mut seq = sequence(&[0], &[], params);
    let exact = probabilities(&at_temperature(1.0), &LOGITS);
    let is_close = |id: u32, logprob: f32| (f64::from(logprob) - exact[&id].ln()).abs() < 1e-6;
    for num_top in [0, 1, 3, 9] {
        seq.request.logprobs = Some(num_top);
        let token = sample(&seq, &LOGITS).unwrap();
        assert_eq!(token.id, 6);
        assert!(is_close(6, token.logprob.unwrap()));
        let ids: Vec<u32> = token.top.iter().map(|top| top.id).collect();
        assert_eq!(ids, [3, 4, 7, 0, 1, 8, 5, 2, 6][..num_top]);
        assert!(token.top.iter().all(|top| is_close(top.id, top.logprob)));
    }
    seq.request.logprobs = None;
    assert_eq!(sample(&seq, &LOGITS).unwrap(), SampledToken { id: 6, logprob: None, top: vec![] });
}

/// What `draw` lets into the race.
fn filtered(params: &SamplingParams, logits: &[f32]) -> Vec<u32> {
    let max = pinion_kernels::logits::scan(logits).max;
    let (mut weights, mut ids, mut candidates) = (Vec::new(), Vec::new(), Vec::new());
    pinion_kernels::logits::weights(logits, max, params.temperature, &mut weights);
    if let Some(k) = params.top_k {
        pinion_kernels::logits::largest(logits, k, &mut ids);
        let weight = |logit: f32| pinion_kernels::logits::exp((logit - max) / params.temperature);
        filter::collect(logits, &ids, weight, &mut candidates);
        filter::keep_top_p(&mut candidates, params.top_p);
    } else {
        filter::collect_top_p(logits, &weights, params.top_p, &mut ids, &mut candidates);
    }
    let mut ids: Vec<u32> = candidates.iter().map(|one| one.id).collect();
    ids.sort_by(|&a, &b| filter::best_first(logits, a, b));
    ids
}

proptest! {
    #[test]
    fn filters_keep_what_a_full_sort_would(
        // Few values, so that there are ties; many tokens, so that partial sorts have to go on.
        logits in prop::collection::vec((-40i8..40).prop_map(|value| f32::from(value) / 8.0), 1..1500),
        top_k in prop::option::of(1usize..1500),
        top_p in 0.0f32..1.0,
        temperature in 0.2f32..3.0,
    ) {
        let params = SamplingParams { top_p, top_k, ..at_temperature(temperature) };
        let ours = filtered(&params, &logits);
        let naive = probabilities(&params, &logits);
        // Sums that differ in their last digit may move the border by one token.
        prop_assert!(ours.len().abs_diff(naive.len()) <= 1, "{} {}", ours.len(), naive.len());
        let both = ours.len().min(naive.len());
        prop_assert!(ours[..both].iter().all(|id| naive.contains_key(id)));
        prop_assert!(naive.contains_key(&pick(&params, &logits)) || naive.len() < ours.len());
    }

    #[test]
    fn a_draw_depends_on_no_other_row(
        rows in prop::collection::vec(prop::collection::vec(-5.0f32..5.0, 50), 2..6),
        top_p in 0.5f32..=1.0,
    ) {
        let params = SamplingParams { top_p, logit_bias: vec![(3, 1.0)], ..at_temperature(1.0) };
        let seq = sequence(&[0], &[], params);
        let same = vec![row(&seq); rows.len()];
        let together = Sampler::default().sample(&same, &rows.concat(), 50);
        for (logits, sampled) in rows.iter().zip(together) {
            prop_assert_eq!(sampled, sample(&seq, logits));
        }
    }
}
