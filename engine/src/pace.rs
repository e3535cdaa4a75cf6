//! How long steps take, from how long the recent ones took.

use std::time::Duration;

/// What a step weighs compared to the one after it.
const DECAY: f64 = 0.98;

/// Fits `time = per_step + per_token * tokens` to the recent steps, by least squares.
///
/// Steps cost something however small they are, so a mean over steps of single tokens would tell
/// nothing about prompts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    weight: f64,
    tokens: f64,
    seconds: f64,
    tokens_squared: f64,
    tokens_seconds: f64,
}

impl Pace {
    /// A step ran.
    pub(crate) fn observe(&mut self, num_tokens: usize, time: Duration) {
        let (tokens, seconds) = (num_tokens as f64, time.as_secs_f64());
        self.weight = self.weight * DECAY + 1.0;
        self.tokens = self.tokens * DECAY + tokens;
        self.seconds = self.seconds * DECAY + seconds;
        self.tokens_squared = self.tokens_squared * DECAY + tokens * tokens;
        self.tokens_seconds = self.tokens_seconds * DECAY + tokens * seconds;
    }

    /// How long so many steps with so many tokens in all will take; `None` before any was seen.
    pub(crate) fn time(&self, num_steps: usize, num_tokens: usize) -> Option<Duration> {
        if self.weight == 0.0 {
            return None;
        }
        let (per_step, per_token) = self.fit();
        let seconds = per_step * num_steps as f64 + per_token * num_tokens as f64;
        Duration::try_from_secs_f64(seconds).ok()
    }

    fn fit(&self) -> (f64, f64) {
        let covariance = self.weight * self.tokens_seconds - self.tokens * self.seconds;
        let variance = self.weight * self.tokens_squared - self.tokens * self.tokens;
        // Steps of one size say nothing about others; then better too short than too long.
        if variance < 1e-6 * self.weight * self.tokens_squared {
            return (self.seconds / self.weight, 0.0);
        }
        let whole = self.seconds / self.tokens;
        let per_token = (covariance / variance).clamp(0.0, whole);
        ((self.seconds - per_token * self.tokens) / self.weight, per_token)
    }
}

#[cfg(test)]
mod tests;
