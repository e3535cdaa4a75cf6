//! A small random Llama: what else happens must not change what a request gets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use pinion_models::{CausalLm, MapSource, ModelConfig, Weights, quant};

use super::submit;
use crate::testing::{config, engine};
use crate::{
    Engine, EngineHandle, FinishReason, Request, RequestId, SamplingParams, SchedulerConfig,
};

const VOCAB: usize = 97;
const MAX_LEN: usize = 128;
const NUM_TOKENS: usize = 12;

fn model() -> Box<dyn CausalLm> {
    let json = format!(
        r#"{{"architectures":["LlamaForCausalLM"],"vocab_size":{VOCAB},"hidden_size":32,
        "intermediate_size":48,"num_hidden_layers":2,"num_attention_heads":4,
        "num_key_value_heads":2,"max_position_embeddings":{MAX_LEN},"rms_norm_eps":1e-5}}"#
    );
    let scheme = quant::scheme(None).unwrap();
    let weights = Weights::new(Arc::new(weights()), scheme, DType::F32, Device::Cpu);
    pinion_models::build(&ModelConfig::parse(&json).unwrap(), &weights).unwrap()
}

fn weights() -> MapSource {
    let mut seed = 42u64;
    let mut tensors = HashMap::new();
    let mut add = |name: String, shape: &[usize]| {
        let next = |_| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as f32 / 16_777_216.0 - 0.5
        };
        let data: Vec<f32> = (0..shape.iter().product::<usize>()).map(next).collect();
        tensors.insert(name, Tensor::from_vec(data, shape, &Device::Cpu).unwrap());
    };
    add("model.embed_tokens.weight".into(), &[VOCAB, 32]);
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[usize]| {
            add(format!("model.layers.{layer}.{name}.weight"), shape);
        };
        add("input_layernorm", &[32]);
        add("post_attention_layernorm", &[32]);
        add("self_attn.q_proj", &[32, 32]);
        add("self_attn.k_proj", &[16, 32]);
        add("self_attn.v_proj", &[16, 32]);
        add("self_attn.o_proj", &[32, 32]);
        add("mlp.gate_proj", &[48, 32]);
        add("mlp.up_proj", &[48, 32]);
        add("mlp.down_proj", &[32, 48]);
    }
    add("model.norm.weight".into(), &[32]);
    add("lm_head.weight".into(), &[VOCAB, 32]);
    MapSource(tensors)
}

/// Six prompts of 5 to 40 tokens that begin alike; half of them greedy, half sampled.
fn requests() -> Vec<Request> {
    (0..6u64)
        .map(|id| {
            let token = |at: u64| if at < 9 { at } else { (at * 13 + id * 29) % VOCAB as u64 };
            let prompt = (0..5 + 7 * id).map(|at| token(at) as u32).collect();
            let base = Request::greedy(RequestId(id), prompt, NUM_TOKENS);
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

type Texts = BTreeMap<RequestId, Vec<u32>>;

fn start(config: SchedulerConfig, num_blocks: usize) -> (Engine, EngineHandle) {
    let (mut engine, handle) = engine(model(), config, num_blocks);
    engine.handle(requests().into_iter().map(submit).collect());
    (engine, handle)
}

fn drain(engine: &mut Engine) -> Texts {
    let mut texts = Texts::new();
    for _ in 0..2000 {
        for output in engine.step().outputs {
            texts.entry(output.id).or_default().push(output.token.expect("a token").id);
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

fn limits() -> SchedulerConfig {
    config(VOCAB, MAX_LEN)
}

#[test]
fn the_texts_that_the_other_tests_compare_are_worth_comparing() {
    let alone = alone();
    assert_eq!(alone.len(), 6);
    assert!(alone.values().all(|text| text.len() == NUM_TOKENS));
    let variety = |text: &Vec<u32>| text.iter().collect::<BTreeSet<_>>().len();
    assert!(alone.values().all(|text| 4 <= variety(text)), "{alone:?}");
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
        request.prompt.extend(&answer[..half]);
        request.stop.max_tokens = half;
        let is_greedy = request.sampling.temperature == 0.0;
        let id = request.id;
        engine.handle(vec![submit(request)]);
        let output = engine.step().outputs.remove(0);
        assert!(Some(0) < output.num_cached_tokens);
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
        outputs
            .for_each(|output| texts.entry(output.id).or_default().push(output.token.unwrap().id));
    }
    assert_eq!(texts, alone());
}
