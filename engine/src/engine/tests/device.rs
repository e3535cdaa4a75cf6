//! The engine over a GPU, or the emulation of its kernels: the texts of the CPU.

use std::sync::Arc;

use candle_core::DType;
use pinion_kernels::{Device, Gpu, KvCacheSpec, PagedKvCache, WeightType};
use pinion_models::testing::{random_source, tiny_llama};
use pinion_models::{Weights, build};

use super::{Collected, submit};
use crate::testing::config;
use crate::{
    BlockPool, Engine, EngineParts, Request, RequestId, SamplingParams, Scheduler, SchedulerConfig,
    StopCriteria,
};

fn engine_on(device: &Device, limits: SchedulerConfig) -> Engine {
    let source = Arc::new(random_source(&tiny_llama(), 7).unwrap());
    let weights = Weights::new(source, Some(WeightType::F32)).on(device);
    let model = build(&tiny_llama(), &weights).unwrap();
    let spec = model.spec();
    let cache = KvCacheSpec {
        num_layers: spec.num_layers,
        num_kv_heads: spec.num_kv_heads,
        head_dim: spec.head_dim,
        block_size: 4,
        num_blocks: 40,
        dtype: DType::F32,
    };
    let parts = EngineParts {
        kv: PagedKvCache::allocate_on(&cache, device).unwrap(),
        attention: device.attention(),
        scheduler: Scheduler::new(limits, BlockPool::new(40, 4)),
        clock: Box::new(|| std::time::Duration::ZERO),
        model,
    };
    Engine::new(parts).unwrap().0
}

fn requests() -> Vec<Request> {
    let greedy = SamplingParams::greedy();
    let drawn = SamplingParams { temperature: 0.9, seed: 5, ..SamplingParams::greedy() };
    let all = [
        greedy.clone(),
        drawn.clone(),
        SamplingParams { top_k: Some(7), top_p: 0.8, seed: 9, ..drawn.clone() },
        SamplingParams { top_p: 0.6, min_p: 0.05, temperature: 1.4, ..drawn.clone() },
        SamplingParams { repetition_penalty: 1.4, presence_penalty: 0.5, ..greedy },
        SamplingParams { logit_bias: vec![(3, 2.0), (4, -9.0)], frequency_penalty: 0.4, ..drawn },
    ];
    (1..)
        .zip(all)
        .map(|(id, sampling)| {
            let prompt = (0..5 + 4 * id as u32).map(|t| (t * 11 + id as u32 * 3) % 97).collect();
            let stop = StopCriteria { min_tokens: 3, ..StopCriteria::length(12) };
            Request { sampling, stop, ..Request::greedy(RequestId(id), prompt, 12) }
        })
        .collect()
}

#[test]
fn requests_on_a_gpu_get_the_tokens_of_the_cpu() {
    let Some(gpu) = Gpu::for_tests().map(Device::Gpu) else { return };
    let limits = || SchedulerConfig {
        max_num_batched_tokens: 24,
        max_chunk: 24,
        num_draft_tokens: 2,
        ..config(97, 96)
    };
    let run = |device: &Device, requests: Vec<Request>| {
        let mut engine = engine_on(device, limits());
        engine.handle(requests.into_iter().map(submit).collect());
        Collected::run(&mut engine).0
    };
    let on_cpu = run(&Device::Cpu, requests());
    assert_eq!(run(&gpu, requests()), on_cpu);
    // Log probabilities need the logits on the host, and change no token.
    let with_logprobs =
        requests().into_iter().map(|request| Request { logprobs: Some(2), ..request });
    assert_eq!(run(&gpu, with_logprobs.collect()), on_cpu);
    for request in requests() {
        let id = request.id.0;
        assert_eq!(run(&gpu, vec![request])[&id], on_cpu[&id], "alone");
    }
}
