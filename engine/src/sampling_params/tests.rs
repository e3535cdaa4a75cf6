//! Tests of `sampling_params`, and of the other half of a request, `StopCriteria`.

use crate::{SamplingParams, StopCriteria};

#[test]
fn every_field_is_checked_and_named() {
    let message = |change: &dyn Fn(&mut SamplingParams)| {
        let mut params = SamplingParams::greedy();
        change(&mut params);
        params.validate(100).unwrap_err().to_string()
    };
    let messages = [
        message(&|params| params.temperature = -0.1),
        message(&|params| params.temperature = f32::NAN),
        message(&|params| params.top_p = 1.5),
        message(&|params| params.top_k = Some(0)),
        message(&|params| params.min_p = -1.0),
        message(&|params| params.repetition_penalty = 0.0),
        message(&|params| params.presence_penalty = 2.5),
        message(&|params| params.frequency_penalty = f32::INFINITY),
        message(&|params| params.logit_bias = vec![(99, 1.0), (100, 1.0)]),
        message(&|params| params.logit_bias = vec![(1, 101.0)]),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    `temperature` must be between 0 and 100: -0.1
    `temperature` must be between 0 and 100: NaN
    `top_p` must be between 0 and 1: 1.5
    `top_k` must be at least 1: 0
    `min_p` must be between 0 and 1: -1
    `repetition_penalty` must be between 0.01 and 100: 0
    `presence_penalty` must be between -2 and 2: 2.5
    `frequency_penalty` must be between -2 and 2: inf
    `logit_bias` must be a token id below 100: 100
    `logit_bias` must be between -100 and 100: 101
    ");
}

#[test]
fn what_makes_sense_is_taken() {
    let params = SamplingParams {
        temperature: 2.0,
        top_p: 0.0,
        top_k: Some(1_000_000),
        min_p: 1.0,
        seed: u64::MAX,
        repetition_penalty: 1.3,
        presence_penalty: -2.0,
        frequency_penalty: 2.0,
        logit_bias: vec![(0, -100.0), (99, 100.0)],
        processed_logprobs: true,
    };
    assert_eq!(params.validate(100), Ok(()));
}

#[test]
fn the_end_of_a_request_is_checked_too() {
    let base = StopCriteria::length(5);
    let message = |stop: StopCriteria| stop.validate(100).unwrap_err().to_string();
    let messages = [
        message(StopCriteria { min_tokens: 6, ..base.clone() }),
        message(StopCriteria { eos_token_ids: vec![100], ..base.clone() }),
        message(StopCriteria { stop_token_ids: vec![1, 200], ..base.clone() }),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    `min_tokens` must be at most `max_tokens`, 5: 6
    `eos_token_ids` must be a token id below 100: 100
    `stop_token_ids` must be a token id below 100: 200
    ");
    assert_eq!(StopCriteria { min_tokens: 5, ..base }.validate(100), Ok(()));
}
