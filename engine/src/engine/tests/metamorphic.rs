//! A small random Llama: what else happens must not change what a request gets.

use std::collections::{BTreeMap, BTreeSet};

use pinion_models::CausalLm;
use pinion_models::testing::{random_model, tiny_llama};

use super::submit;
use crate::testing::{config, engine};
use crate::{
    Choice, Engine, EngineHandle, FinishReason, Request, RequestId, SampledToken, SamplingParams,
    SchedulerConfig,
};

const VOCAB: usize = 97;
const MAX_LEN: usize = 128;
const NUM_TOKENS: usize = 12;

fn model() -> Box<dyn CausalLm> {
    random_model(&tiny_llama(), 42, None).unwrap()
}

/// Six prompts of 5 to 40 tokens that begin alike; half of them greedy, half sampled.
pub(super) fn requests() -> Vec<Request> {
    (0..6u64)
        .map(|id| {
            let token = |at: u64| if at < 9 { at } else { (at * 13 + id * 29) % VOCAB as u64 };
            let prompt = (0..5 + 7 * id).map(|at| token(at) as u32).collect();
            let base = Request::greedy(RequestId(id), prompt, NUM_TOKENS);
            let base = Request { logprobs: Some(3), ..base };
            if id % 2 == 0 {
                return base;
            }
            let sampling = SamplingParams {
                temperature: 1.5,
                top_p: 0.95,
                seed: 1000 + id,
                repetition_penalty: 1.1,
                frequency_penalty: 0.2,
                ..SamplingParams::greedy()
            };
            Request { sampling, ..base }
        })
        .collect()
}

/// Tokens with the bits of their log probabilities: equal texts of unequal logits do not pass.
pub(super) type Texts = BTreeMap<RequestId, Vec<SampledToken>>;

fn start(config: SchedulerConfig, num_blocks: usize) -> (Engine, EngineHandle) {
    engine_with(config, num_blocks, requests())
}

fn engine_with(
    config: SchedulerConfig,
    num_blocks: usize,
    requests: Vec<Request>,
) -> (Engine, EngineHandle) {
    let (mut engine, handle) = engine(model(), config, num_blocks);
    engine.handle(requests.into_iter().map(submit).collect());
    (engine, handle)
}

pub(super) fn drain(engine: &mut Engine) -> Texts {
    let mut texts = Texts::new();
    for _ in 0..2000 {
        for output in engine.step().outputs {
            texts.entry(output.id).or_default().push(output.token.expect("a token"));
            assert!(matches!(output.finish, None | Some(FinishReason::Length)));
        }
        engine.scheduler().check();
        if engine.scheduler().is_idle() {
            return texts;
        }
    }
    panic!("no end: {:?}", engine.scheduler().stats())
}

fn alone() -> Texts {
    let config = SchedulerConfig { max_num_seqs: 1, prefix_cache: false, ..limits() };
    drain(&mut start(config, 200).0)
}

pub(super) fn limits() -> SchedulerConfig {
    config(VOCAB, MAX_LEN)
}

#[test]
fn the_texts_that_the_other_tests_compare_are_worth_comparing() {
    let alone = alone();
    assert_eq!(alone.len(), 6);
    assert!(alone.values().all(|text| text.len() == NUM_TOKENS));
    let variety =
        |text: &[SampledToken]| text.iter().map(|token| token.id).collect::<BTreeSet<_>>().len();
    assert!(alone.values().all(|text| 4 <= variety(text.as_slice())), "{alone:?}");
    let greedy: Vec<Request> = requests()
        .into_iter()
        .map(|request| Request { sampling: SamplingParams::greedy(), ..request })
        .collect();
    let (mut engine, _handle) = engine(model(), limits(), 200);
    engine.handle(greedy.into_iter().map(submit).collect());
    let differs = drain(&mut engine).iter().filter(|(id, text)| alone[*id] != **text).count();
    assert_eq!(differs, 3, "sampling is not greedy");
}

#[test]
fn batching_does_not_change_the_text() {
    let config = SchedulerConfig { prefix_cache: false, ..limits() };
    assert_eq!(drain(&mut start(config, 200).0), alone());
}

#[test]
fn chunks_do_not_change_the_text() {
    for (max_chunk, max_num_batched_tokens, max_num_seqs) in
        [(1, 512, 6), (7, 512, 6), (512, 1, 2), (512, 7, 6), (3, 8, 4)]
    {
        let config = SchedulerConfig {
            max_chunk,
            max_num_batched_tokens,
            max_num_seqs,
            prefix_cache: false,
            ..limits()
        };
        assert_eq!(drain(&mut start(config.clone(), 200).0), alone(), "{config:?}");
    }
}

#[test]
fn preemption_does_not_change_the_text() {
    let mut num_preemptions = 0;
    for (num_blocks, max_chunk, prefix_cache) in
        [(20, 512, false), (20, 512, true), (15, 5, false), (15, 5, true), (14, 64, true)]
    {
        let config = SchedulerConfig { max_chunk, prefix_cache, ..limits() };
        let (mut engine, _handle) = start(config.clone(), num_blocks);
        assert_eq!(drain(&mut engine), alone(), "{num_blocks} {config:?}");
        num_preemptions += engine.scheduler().stats().num_preemptions;
    }
    assert!(5 < num_preemptions, "{num_preemptions}");
}

#[test]
fn a_cached_prefix_does_not_change_the_text() {
    let alone = alone();
    let (mut engine, _handle) = start(limits(), 200);
    assert_eq!(drain(&mut engine), alone);
    // The prompts again, and then the answers as part of the prompt.
    engine.handle(requests().into_iter().map(submit).collect());
    assert_eq!(drain(&mut engine), alone);
    let hits = engine.scheduler().stats().prefix_hits;
    assert!(100 < hits, "{hits}");
    for mut request in requests() {
        let (answer, half) = (&alone[&request.id], NUM_TOKENS / 2);
        request.prompt.extend(answer[..half].iter().map(|token| token.id));
        request.stop.max_tokens = half;
        let is_greedy = request.sampling.temperature == 0.0;
        let id = request.id;
        engine.handle(vec![submit(request)]);
        let output = engine.step().outputs.remove(0);
        assert!(output.prompt.is_some_and(|prompt| 0 < prompt.num_cached_tokens));
        let rest = drain(&mut engine).remove(&id).unwrap();
        // Prompt tokens are not penalized by frequency, so only greedy ones are bound to agree.
        assert!(!is_greedy || rest == answer[half + 1..]);
    }
}

#[test]
fn neighbours_that_come_and_go_do_not_change_the_text() {
    let config = SchedulerConfig { max_chunk: 6, max_num_batched_tokens: 16, ..limits() };
    let (mut engine, _handle) = start(config, 30);
    let mut texts = Texts::new();
    for round in 0..200u64 {
        let (id, len) = (RequestId(100 + round), 1 + round * 5 % 23);
        let prompt = (0..len).map(|at| ((at + round) % 90) as u32).collect();
        engine.handle(vec![submit(Request::greedy(id, prompt, 3))]);
        if round % 3 == 2 {
            engine.handle(vec![crate::Command::Abort(RequestId(98 + round))]);
        }
        let outputs = engine.step().outputs.into_iter().filter(|output| output.id.0 < 100);
        outputs.for_each(|output| texts.entry(output.id).or_default().push(output.token.unwrap()));
    }
    assert_eq!(texts, alone());
}

/// The requests, each with two more choices, and what these are as requests of their own.
fn with_choices() -> (Vec<Request>, Vec<Request>) {
    let mut lone = requests();
    let mut together = requests();
    for request in &mut together {
        for index in 1..3 {
            let choice = Choice {
                id: RequestId(request.id.0 + 10 * index),
                seed: 77 * index + request.id.0,
            };
            let sampling = SamplingParams { seed: choice.seed, ..request.sampling.clone() };
            lone.push(Request { id: choice.id, sampling, choices: vec![], ..request.clone() });
            request.choices.push(choice);
        }
    }
    (together, lone.into_iter().map(|one| Request { choices: vec![], ..one }).collect())
}

#[test]
fn choices_get_the_texts_of_requests_of_their_own() {
    let (together, lone) = with_choices();
    let config = SchedulerConfig { max_num_seqs: 1, prefix_cache: false, ..limits() };
    let (mut engine, _handle) = engine_with(config, 200, lone);
    let expected = drain(&mut engine);
    assert_eq!(expected.len(), 18);
    assert_ne!(expected[&RequestId(1)], expected[&RequestId(11)]);
    assert_eq!(expected[&RequestId(2)], expected[&RequestId(12)], "greedy needs no seed");
    let (mut num_preemptions, mut num_copies) = (0, 0);
    for (num_blocks, max_num_seqs, max_chunk, prefix_cache) in [
        (200, 64, 512, true),
        (200, 64, 512, false),
        (200, 2, 7, true),
        (200, 2, 7, false),
        (30, 64, 512, true),
        (20, 64, 5, false),
        (14, 64, 64, true),
    ] {
        let config = SchedulerConfig { max_num_seqs, max_chunk, prefix_cache, ..limits() };
        let (mut engine, _handle) = engine_with(config.clone(), num_blocks, together.clone());
        let mut texts = Texts::new();
        while !engine.scheduler().is_idle() {
            let (plan, outputs) = engine.step_with_plan();
            num_copies += plan.copies.len();
            for output in outputs {
                texts.entry(output.id).or_default().push(output.token.expect("a token"));
            }
            engine.scheduler().check();
        }
        assert_eq!(texts, expected, "{num_blocks} {config:?}");
        num_preemptions += engine.scheduler().stats().num_preemptions;
    }
    assert!(5 < num_preemptions && 20 < num_copies, "{num_preemptions} {num_copies}");
}

#[test]
fn one_prompt_that_comes_many_times_at_once_is_computed_once() {
    let prompt: Vec<u32> = (0..64).map(|at| at * 7 % 90).collect();
    let many = (0..6).map(|id| {
        let prompt = [&prompt[..], &[id as u32, 3]].concat();
        Request::greedy(RequestId(id), prompt, 4)
    });
    let (mut engine, _handle) = engine_with(limits(), 200, many.clone().collect());
    let (mut num_tokens, mut num_steps) = (0, 0);
    let mut texts = Texts::new();
    while !engine.scheduler().is_idle() {
        let (plan, outputs) = engine.step_with_plan();
        (num_tokens, num_steps) = (num_tokens + plan.num_tokens(), num_steps + 1);
        for output in outputs {
            texts.entry(output.id).or_default().push(output.token.expect("a token"));
        }
    }
    assert_eq!((num_tokens, num_steps), (64 + 6 * (2 + 3), 5));
    let config = SchedulerConfig { max_num_seqs: 1, prefix_cache: false, ..limits() };
    let (mut engine, _handle) = engine_with(config, 200, many.collect());
    assert_eq!(texts, drain(&mut engine));
}

#[test]
fn a_request_goes_on_behind_tokens_that_were_generated_before() {
    let alone = alone();
    for num_generated in 1..NUM_TOKENS {
        let resumed = requests().into_iter().map(|request| {
            let generated = alone[&request.id][..num_generated].iter().map(|token| token.id);
            Request { generated: generated.collect(), ..request }
        });
        let (mut engine, _handle) = engine_with(limits(), 200, resumed.collect());
        for (id, rest) in drain(&mut engine) {
            assert_eq!(rest, alone[&id][num_generated..], "behind {num_generated} tokens");
        }
    }
}

#[test]
fn a_request_with_nothing_left_to_generate_is_refused() {
    let generated = vec![1; NUM_TOKENS];
    let request = Request { generated, ..requests().swap_remove(0) };
    let (_engine, handle) = engine(model(), limits(), 200);
    let refusal = handle.submit(request).unwrap_err();
    assert!(refusal.to_string().contains("generated"), "{refusal}");
}
