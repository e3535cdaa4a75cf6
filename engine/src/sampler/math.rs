//! Arithmetic over a row of logits, the same on every machine.

/// Whether something can be sampled: no NaN, no `+inf`, and not only `-inf`.
pub(super) fn is_usable(logits: &[f32]) -> bool {
    let is_bad = |logit: f32| logit.is_nan() || logit == f32::INFINITY;
    let has_bad = logits.iter().fold(false, |bad, &logit| bad | is_bad(logit));
    !has_bad && logits.iter().any(|&logit| logit != f32::NEG_INFINITY)
}

/// Index of the greatest logit, the lowest of several.
pub(super) fn argmax(logits: &[f32]) -> u32 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, &logit| max.max(logit));
    logits.iter().position(|&logit| max <= logit).unwrap_or(0) as u32
}

/// `ln(sum(exp(logits)))`.
pub(super) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, &logit| max.max(logit));
    let sum: f64 = logits.iter().map(|&logit| f64::from(exp(logit - max))).sum();
    f64::from(max) + sum.ln()
}

/// `e^x` for `x <= 0`, within three units in the last place; zero below -87. Written out because
/// that of the C library differs between machines.
pub(super) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and subtracting it rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    if x < -87.0 {
        return 0.0;
    }
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let coefficients =
        [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let power = coefficients.into_iter().fold(0.0, |sum, c| sum * r + c);
    power * f32::from_bits((n as i32 + 127).cast_unsigned() << 23)
}

#[cfg(test)]
mod tests;
