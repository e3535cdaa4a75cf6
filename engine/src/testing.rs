//! A model that follows a script, and checks of what a scheduler plans.

mod check;
mod simulation;

use candle_core::{DType, Device, Result, Tensor};
use pinion_kernels::{Activations, KvCacheSpec, PagedAttention, PagedKvCache};
use pinion_models::{CausalLm, ForwardCtx, ModelSpec};

use crate::policy::Place;
use crate::sampler::{Row, Sampler};
use crate::{
    BlockPool, Clock, Engine, EngineHandle, EngineParts, Request, SampledToken, Scheduler,
    SchedulerConfig, Sequence,
};

pub use self::check::{check_schedule, config};
pub use self::simulation::{Summary, simulate};

/// Logits of one row, from the token it follows and the position of that token.
pub type Script = Box<dyn Fn(u32, u32) -> Result<Vec<f32>> + Send>;

/// A language model without weights.
pub struct ScriptedModel {
    spec: ModelSpec,
    script: Script,
}

impl ScriptedModel {
    /// Answers each row with `script`; the script may fail or panic.
    pub fn new(vocab_size: usize, max_model_len: usize, script: Script) -> Self {
        let spec = ModelSpec {
            num_layers: 1,
            num_kv_heads: 1,
            head_dim: 1,
            vocab_size,
            max_model_len,
            num_parameters: 0,
            weight_bytes: 0,
        };
        Self { spec, script }
    }

    /// After token `t` comes `t + 1`, and after the last one the first.
    pub fn counting(vocab_size: usize, max_model_len: usize) -> Self {
        let script = move |token: u32, _| Ok(one_hot(vocab_size, (token + 1) % vocab_size as u32));
        Self::new(vocab_size, max_model_len, Box::new(script))
    }
}

impl CausalLm for ScriptedModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&self, cx: &ForwardCtx<'_>) -> Result<Activations> {
        let tokens = cx.batch.input_ids.to_vec1::<u32>()?;
        let positions = cx.batch.positions.to_vec1::<u32>()?;
        let rows = cx.batch.logits_indices.to_vec1::<u32>()?;
        let mut logits = Vec::with_capacity(rows.len() * self.spec.vocab_size);
        for &row in &rows {
            logits.extend((self.script)(tokens[row as usize], positions[row as usize])?);
        }
        let shape = (rows.len(), self.spec.vocab_size);
        Activations::from_tensor(&Tensor::from_vec(logits, shape, &Device::Cpu)?)
    }
}

/// Logits that leave no choice but `token`.
pub fn one_hot(vocab_size: usize, token: u32) -> Vec<f32> {
    (0..vocab_size as u32).map(|id| if id == token { 10.0 } else { -10.0 }).collect()
}

/// An engine on the CPU with blocks of four tokens.
pub fn engine(
    model: Box<dyn CausalLm>,
    config: SchedulerConfig,
    num_blocks: usize,
) -> (Engine, EngineHandle) {
    engine_with_clock(model, config, num_blocks, Box::new(|| std::time::Duration::ZERO))
}

/// The same by a clock.
pub fn engine_with_clock(
    model: Box<dyn CausalLm>,
    config: SchedulerConfig,
    num_blocks: usize,
    clock: Clock,
) -> (Engine, EngineHandle) {
    let spec = model.spec();
    let cache = KvCacheSpec {
        num_layers: spec.num_layers,
        num_kv_heads: spec.num_kv_heads,
        head_dim: spec.head_dim,
        block_size: 4,
        num_blocks,
        dtype: DType::F32,
    };
    let parts = EngineParts {
        kv: PagedKvCache::allocate(&cache, &Device::Cpu).expect("the CPU has memory for a test"),
        attention: Box::new(PagedAttention),
        scheduler: Scheduler::new(config, BlockPool::new(num_blocks, 4)),
        clock,
        model,
    };
    Engine::new(parts).expect("the parts are made for each other")
}

/// What a step does after the forward pass, alone: one token for each sequence.
pub struct SamplingStep {
    sampler: Sampler,
    sequences: Vec<Sequence>,
}

impl SamplingStep {
    /// A step of sequences that are about to sample their first token.
    pub fn new(requests: Vec<Request>) -> Self {
        let start = |request: Request| {
            let place = Place::new(request.class, request.id.0);
            Sequence::new(request, place)
        };
        let sequences = requests.into_iter().map(start).collect();
        Self { sampler: Sampler::default(), sequences }
    }

    /// Samples from `logits`, one row of `vocab_size` a sequence.
    pub fn sample(&mut self, logits: &[f32], vocab_size: usize) -> Vec<SampledToken> {
        let rows: Vec<Row<'_>> = self.sequences.iter().map(Row::last).collect();
        let sampled = self.sampler.sample(&rows, logits, vocab_size).into_iter();
        sampled.map(|token| token.expect("logits are numbers")).collect()
    }
}
