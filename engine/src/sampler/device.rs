//! Sampling where the logits are, so that only tokens leave a device.

use std::collections::BTreeMap;

use pinion_kernels::{Activations, SampleRow, TokenEdit, sample};

use super::{Row, Sampled};
use crate::{SampledToken, SequenceError};

/// The tokens of all rows; nothing where a row wants log probabilities, which need its logits.
pub(crate) fn on_device(
    rows: &[Row<'_>],
    logits: &Activations,
) -> candle_core::Result<Option<Vec<Sampled>>> {
    let wants_logits = |row: &Row<'_>| row.seq.request.logprobs.is_some() || row.given().is_some();
    if rows.iter().any(wants_logits) {
        return Ok(None);
    }
    let params: Vec<SampleRow> = rows.iter().map(parameters).collect();
    let edits: Vec<TokenEdit> =
        (0..).zip(rows).flat_map(|(index, row)| edits(index, row).into_values()).collect();
    let tokens = sample(logits, &params, &edits)?;
    let sampled = |(row, token): (&Row<'_>, Option<u32>)| match token {
        Some(id) => Ok(SampledToken { id, logprob: None, top: Vec::new() }),
        None => Err(SequenceError::NonFiniteLogits { position: row.position }),
    };
    Ok(Some(rows.iter().zip(tokens).map(sampled).collect()))
}

fn parameters(row: &Row<'_>) -> SampleRow {
    let params = &row.seq.request.sampling;
    SampleRow {
        seed: params.seed,
        position: row.position as u64,
        temperature: params.temperature,
        top_p: params.top_p,
        min_p: params.min_p,
        repetition: params.repetition_penalty,
        frequency: params.frequency_penalty,
        presence: params.presence_penalty,
        top_k: params.top_k.map_or(0, |k| u32::try_from(k).unwrap_or(0)),
        padding: 0,
    }
}

/// What [`Row::process`] does to logits, token by token.
fn edits(index: u32, row: &Row<'_>) -> BTreeMap<u32, TokenEdit> {
    let params = &row.seq.request.sampling;
    let mut edits = BTreeMap::new();
    let mut at = |token: u32, change: &dyn Fn(&mut TokenEdit)| {
        let new = TokenEdit { row: index, token, masked: 0, penalized: 0, count: 0, bias: 0.0 };
        change(edits.entry(token).or_insert(new));
    };
    if row.is_below_min_tokens() {
        row.seq.request.stop.end_tokens().for_each(|token| at(token, &|edit| edit.masked = 1));
    }
    for &(token, bias) in &params.logit_bias {
        at(token, &|edit| edit.bias += bias);
    }
    if params.has_penalties() {
        let draft = row.draft();
        for (&token, &count) in &row.seq.output_counts {
            at(token, &|edit| (edit.penalized, edit.count) = (1, edit.count + count));
        }
        for &token in draft {
            at(token, &|edit| (edit.penalized, edit.count) = (1, edit.count + 1));
        }
    }
    edits
}
