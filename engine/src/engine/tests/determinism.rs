//! Random schedules of a small random Llama against the lone run: tokens and the bits of their log
//! probabilities.

use std::collections::BTreeMap;
use std::ops::Range;

use pinion_kernels::WeightType;
use pinion_models::testing::{random_model, tiny_llama};
use pinion_models::{CausalLm, ModelConfig};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::submit;
use crate::testing::{config, engine};
use crate::{
    Choice, Engine, EngineStats, FinishReason, Request, RequestId, RouteClass, SampledToken,
    SamplingParams, SchedulerConfig, StopCriteria,
};

const VOCAB: u32 = 97;
const MAX_LEN: usize = 96;

/// Tokens of each sequence, those of a scored prompt before the others.
type Texts = BTreeMap<RequestId, Vec<SampledToken>>;

fn model() -> Box<dyn CausalLm> {
    random_model(&tiny_llama(), 7, None).unwrap()
}

/// What happens around the requests.
#[derive(Clone, Debug)]
struct World {
    max_num_seqs: usize,
    max_num_batched_tokens: usize,
    max_chunk: usize,
    num_blocks: usize,
    prefix_cache: bool,
    num_draft_tokens: usize,
    num_threads: usize,
    /// Requests that come before each step.
    arrivals: Vec<usize>,
}

impl World {
    /// One request after the other, one token after the other.
    fn alone() -> Self {
        Self {
            max_num_seqs: 1,
            max_num_batched_tokens: 512,
            max_chunk: 512,
            num_blocks: 100,
            prefix_cache: false,
            num_draft_tokens: 0,
            num_threads: 1,
            arrivals: vec![usize::MAX],
        }
    }

    fn start(&self, model: Box<dyn CausalLm>) -> Engine {
        let config = SchedulerConfig {
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_chunk: self.max_chunk,
            prefix_cache: self.prefix_cache,
            num_draft_tokens: self.num_draft_tokens,
            ..config(VOCAB as usize, MAX_LEN)
        };
        engine(model, config, self.num_blocks).0
    }

    /// Runs everything to its end.
    fn run(&self, requests: &[Request]) -> (Texts, EngineStats) {
        self.run_on(model(), requests)
    }

    fn run_on(&self, model: Box<dyn CausalLm>, requests: &[Request]) -> (Texts, EngineStats) {
        pinion_kernels::pool::set_num_threads(self.num_threads);
        let mut engine = self.start(model);
        let mut coming = requests.iter().cloned();
        let mut arrivals = self.arrivals.iter().cycle();
        let mut texts = Texts::new();
        let mut is_coming = true;
        while is_coming || !engine.scheduler().is_idle() {
            let num_now = *arrivals.next().expect("it has no end");
            let now: Vec<_> = coming.by_ref().take(num_now).map(submit).collect();
            is_coming = 0 < coming.len();
            engine.handle(now);
            let output = engine.step();
            for output in output.outputs {
                let reason = output.finish;
                let is_end =
                    matches!(reason, None | Some(FinishReason::Length | FinishReason::Stop));
                assert!(is_end, "{reason:?}");
                let text = texts.entry(output.id).or_default();
                text.extend(output.prompt.into_iter().flat_map(|prompt| prompt.logprobs));
                text.extend(output.token);
            }
            engine.scheduler().check();
        }
        let stats = engine.step().stats;
        assert_eq!(stats.blocks_free, stats.blocks_total);
        (texts, stats)
    }
}

/// Each choice as a request of its own.
fn separately(requests: &[Request]) -> Vec<Request> {
    let mut all = Vec::new();
    for request in requests {
        all.push(Request { choices: Vec::new(), ..request.clone() });
        for choice in &request.choices {
            let mut lone = Request { id: choice.id, choices: Vec::new(), ..request.clone() };
            lone.prompt_logprobs = None;
            lone.sampling.seed = choice.seed;
            all.push(lone);
        }
    }
    all
}

fn sampling() -> impl Strategy<Value = SamplingParams> {
    let temperature = prop_oneof![2 => Just(0.0f32), 3 => 0.3f32..2.0];
    let top_p = prop_oneof![Just(1.0f32), 0.3f32..1.0];
    let penalties = prop_oneof![
        3 => Just((1.0f32, 0.0f32, 0.0f32)),
        1 => (0.8f32..1.5, -0.5f32..0.5, -0.5f32..0.5),
    ];
    let bias = prop::collection::vec((0..VOCAB, -3.0f32..3.0), 0..3);
    (temperature, top_p, prop::option::of(1usize..40), any::<u64>(), penalties, bias).prop_map(
        |(temperature, top_p, top_k, seed, penalties, logit_bias)| SamplingParams {
            temperature,
            top_p,
            top_k,
            seed,
            repetition_penalty: penalties.0,
            presence_penalty: penalties.1,
            frequency_penalty: penalties.2,
            logit_bias,
            ..SamplingParams::greedy()
        },
    )
}

/// Prompts that begin alike and repeat themselves, so that prefixes meet and guesses are made.
fn prompt() -> impl Strategy<Value = Vec<u32>> {
    (0usize..14, prop::collection::vec(0..VOCAB, 1..6), 1usize..5).prop_map(
        |(num_common, own, times)| {
            let common = (0..num_common as u32).map(|at| at * 11 % 23);
            common.chain(own.repeat(times)).collect()
        },
    )
}

fn request(num_tokens: Range<usize>) -> impl Strategy<Value = Request> {
    let class = prop::sample::select(RouteClass::ALL.to_vec());
    let end = (0usize..4, prop::collection::vec(0..VOCAB, 0..3));
    let logprobs = (prop::option::of(0usize..3), prop::option::weighted(0.2, 0usize..3));
    (prompt(), sampling(), num_tokens, class, end, logprobs, 0usize..3).prop_map(
        |(
            prompt,
            sampling,
            max_tokens,
            class,
            (min_tokens, stop_token_ids),
            (logprobs, prompt_logprobs),
            num_more,
        )| {
            let more = (0..num_more as u64).map(|at| Choice { id: RequestId(at), seed: at * 77 });
            Request {
                sampling,
                class,
                logprobs,
                prompt_logprobs,
                stop: StopCriteria {
                    min_tokens: min_tokens.min(max_tokens),
                    stop_token_ids,
                    ..StopCriteria::length(max_tokens)
                },
                choices: more.collect(),
                ..Request::greedy(RequestId(0), prompt, max_tokens)
            }
        },
    )
}

/// Gives each request and choice a name of its own.
fn named(mut requests: Vec<Request>) -> Vec<Request> {
    let mut ids = (0..).map(RequestId);
    for request in &mut requests {
        request.id = ids.next().expect("there are many numbers");
        request.choices.iter_mut().for_each(|one| one.id = ids.next().expect("as above"));
    }
    requests
}

fn world() -> impl Strategy<Value = World> {
    let limits = (1usize..7, 1usize..40, 1usize..20, 17usize..40);
    let arrivals = prop::collection::vec(0usize..4, 1..6);
    (limits, any::<bool>(), 0usize..7, 1usize..3, arrivals).prop_map(
        |(limits, prefix_cache, num_draft_tokens, num_threads, mut arrivals)| {
            arrivals.push(1);
            let (max_num_seqs, max_num_batched_tokens, max_chunk, num_blocks) = limits;
            World {
                max_num_seqs,
                max_num_batched_tokens,
                max_chunk,
                num_blocks,
                prefix_cache,
                num_draft_tokens,
                num_threads,
                arrivals,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_changes_a_token_or_a_probability(
        world in world(),
        requests in prop::collection::vec(request(1..24), 1..7),
    ) {
        let requests = named(requests);
        let (alone, _) = World::alone().run(&separately(&requests));
        let (texts, _) = world.run(&requests);
        prop_assert_eq!(texts, alone);
    }
}

/// Everything at once: what the single tests show must also be there together.
#[test]
fn a_thousand_random_requests_get_what_they_get_alone() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = prop::collection::vec(request(1..10), 1000);
    let requests = named(strategy.new_tree(&mut runner).unwrap().current());
    let is_sampled = |request: &&Request| 0.0 < request.sampling.temperature;
    assert!(500 < requests.iter().filter(is_sampled).count());
    let (alone, _) = World::alone().run(&separately(&requests));
    assert!(1000 < alone.len(), "choices are counted");
    let world = World {
        max_num_seqs: 12,
        max_num_batched_tokens: 48,
        max_chunk: 16,
        num_blocks: 45,
        prefix_cache: true,
        num_draft_tokens: 4,
        num_threads: 2,
        arrivals: vec![2, 0, 5, 1, 9, 0, 0],
    };
    let (texts, stats) = world.run(&requests);
    assert!(texts == alone, "{:?}", texts.iter().find(|(id, text)| alone[*id] != **text));
    let EngineStats { num_preemptions, prefix_hits, draft_tokens, .. } = stats;
    let num_right = stats.accepted_draft_tokens;
    assert!(10 < num_preemptions && 100 < prefix_hits, "{stats:?}");
    assert!(30 < num_right && num_right + 100 < draft_tokens, "{stats:?}");
}

/// The models above are so small that one thread does everything; the matrices of this one are
/// shared, in each weight type and at any number of rows.
#[test]
fn threads_that_share_a_matrix_change_no_bit() {
    let config = ModelConfig::parse(
        r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 512,
        "intermediate_size": 768, "num_hidden_layers": 1, "num_attention_heads": 8,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5}"#,
    )
    .unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = prop::collection::vec(request(1..12), 12);
    let requests = named(strategy.new_tree(&mut runner).unwrap().current());
    let requests: Vec<Request> =
        requests.into_iter().map(|one| Request { logprobs: Some(3), ..one }).collect();
    for kind in [WeightType::F32, WeightType::Bf16, WeightType::Q8_0, WeightType::Q4K] {
        let model = || random_model(&config, 11, Some(kind)).unwrap();
        let (alone, _) = World::alone().run_on(model(), &separately(&requests));
        let world = World { max_num_seqs: 8, max_chunk: 40, num_threads: 2, ..World::alone() };
        let (texts, _) = world.run_on(model(), &requests);
        assert!(texts == alone, "{kind:?}");
    }
}

/// What a prompt is scored with is what its tokens had when they were sampled.
#[test]
fn a_text_that_is_scored_has_the_probabilities_it_was_written_with() {
    let written = Request { logprobs: Some(2), ..Request::greedy(RequestId(0), vec![1, 2, 3], 20) };
    let (texts, _) = World::alone().run(std::slice::from_ref(&written));
    let tokens = &texts[&RequestId(0)];
    let output = tokens.iter().map(|token| token.id);
    let prompt: Vec<u32> = written.prompt.iter().copied().chain(output).collect();
    let scored = Request { prompt_logprobs: Some(2), ..Request::greedy(RequestId(0), prompt, 0) };
    let choices = vec![Choice { id: RequestId(1), seed: 5 }];
    let world = World { max_num_batched_tokens: 9, max_chunk: 7, ..World::alone() };
    let world = World { max_num_seqs: 2, ..world };
    let (texts, _) = world.run(&[Request { choices, ..scored }]);
    assert_eq!(texts[&RequestId(0)][2..], tokens[..]);
    assert_eq!(texts[&RequestId(1)], [], "its first answer has them");
}
