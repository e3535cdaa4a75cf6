//! A model that computes nothing, costs time, and fails when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use candle_core::{Device, Result, Tensor};
use pinion_kernels::Activations;
use pinion_models::{CausalLm, ForwardCtx, ModelSpec};

/// What a step costs besides its tokens.
const STEP_MICROS: u64 = 20_000;
/// What a token costs.
const TOKEN_MICROS: u64 = 400;

/// What goes wrong in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poison {
    /// The first row is no number.
    Row,
    /// The step returns an error.
    Error,
    /// The step panics.
    Panic,
}

/// What model, clock and load share. Everything runs on one thread.
#[derive(Debug, Default)]
pub(super) struct World {
    micros: AtomicU64,
    poison: AtomicU8,
    has_failed: AtomicBool,
    num_steps: AtomicU64,
}

impl World {
    pub(super) fn now(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    pub(super) fn advance_to(&self, time: Duration) {
        self.micros.fetch_max(time.as_micros() as u64, Ordering::Relaxed);
    }

    pub(super) fn num_steps(&self) -> u64 {
        self.num_steps.load(Ordering::Relaxed)
    }

    /// Whether the last step failed as a whole: a second one in a row would end the engine.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    pub(super) fn set_poison(&self, poison: Option<Poison>) {
        let code = match poison {
            None => 0,
            Some(Poison::Row) => 1,
            Some(Poison::Error) => 2,
            Some(Poison::Panic) => 3,
        };
        self.poison.store(code, Ordering::Relaxed);
    }
}

/// The token after `token` at `position`. Of few, so that sequences repeat themselves and can be
/// guessed.
pub(super) fn next_token(token: u32, position: usize) -> u32 {
    (token * 7 + position as u32 / 16 % 5 + 1) % 61
}

pub(super) struct SimulatedModel {
    spec: ModelSpec,
    world: Arc<World>,
}

impl SimulatedModel {
    pub(super) fn new(vocab_size: usize, max_model_len: usize, world: Arc<World>) -> Self {
        let spec = ModelSpec {
            num_layers: 1,
            num_kv_heads: 1,
            head_dim: 1,
            vocab_size,
            max_model_len,
            num_parameters: 0,
            weight_bytes: 0,
        };
        Self { spec, world }
    }
}

impl CausalLm for SimulatedModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&self, cx: &ForwardCtx<'_>) -> Result<Activations> {
        let tokens = cx.batch.input_ids.to_vec1::<u32>()?;
        let positions = cx.batch.positions.to_vec1::<u32>()?;
        let rows = cx.batch.logits_indices.to_vec1::<u32>()?;
        let cost = STEP_MICROS + TOKEN_MICROS * tokens.len() as u64;
        self.world.micros.fetch_add(cost, Ordering::Relaxed);
        self.world.num_steps.fetch_add(1, Ordering::Relaxed);
        let poison = self.world.poison.load(Ordering::Relaxed);
        self.world.has_failed.store(1 < poison, Ordering::Relaxed);
        if poison == 2 {
            candle_core::bail!("poisoned")
        }
        if poison == 3 {
            // Unlike `panic!` it does not print.
            std::panic::resume_unwind(Box::new("poisoned"))
        }
        let mut logits = vec![-10.0f32; rows.len() * self.spec.vocab_size];
        for (&row, logits) in rows.iter().zip(logits.chunks_exact_mut(self.spec.vocab_size)) {
            let (token, position) = (tokens[row as usize], positions[row as usize]);
            logits[next_token(token, position as usize) as usize] = 10.0;
        }
        if poison == 1 {
            logits.iter_mut().take(self.spec.vocab_size).for_each(|logit| *logit = f32::NAN);
        }
        let shape = (rows.len(), self.spec.vocab_size);
        Activations::from_tensor(&Tensor::from_vec(logits, shape, &Device::Cpu)?)
    }
}
