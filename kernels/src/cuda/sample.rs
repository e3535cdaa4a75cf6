//! Sampling on a device, so that only tokens leave it.
#![expect(unsafe_code, reason = "kernels get addresses of buffers")]

use candle_core::{Result, bail};

use super::Launch;
use super::memory::Plain;
use crate::Activations;

/// How the token of one row is chosen; the rules are those of the sampler on the host.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct SampleRow {
    /// Seed of the request.
    pub seed: u64,
    /// Index of the token in its sequence.
    pub position: u64,
    /// 0 is greedy.
    pub temperature: f32,
    /// 1 and more: all tokens.
    pub top_p: f32,
    /// Least weight of a candidate, relative to the best.
    pub min_p: f32,
    /// Divides the logits of tokens that occurred.
    pub repetition: f32,
    /// Subtracted for each time a token occurred in the output.
    pub frequency: f32,
    /// Subtracted once from those that did.
    pub presence: f32,
    /// 0: all tokens.
    pub top_k: u32,
    /// Of no meaning.
    pub padding: u32,
}

/// What happens to one logit before; at most once for a row and token.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct TokenEdit {
    /// The row.
    pub row: u32,
    /// The token.
    pub token: u32,
    /// 1: it may not be chosen.
    pub masked: u32,
    /// 1: it occurred, so penalties act.
    pub penalized: u32,
    /// How often in the output.
    pub count: u32,
    /// Added.
    pub bias: f32,
}

// SAFETY: numbers, and no padding between them.
unsafe impl Plain for SampleRow {}
// SAFETY: as above.
unsafe impl Plain for TokenEdit {}

#[derive(Clone, Copy)]
#[repr(C)]
struct EditArgs {
    logits: u64,
    rows: u64,
    edits: u64,
    num_edits: u32,
    vocab: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct SampleArgs {
    logits: u64,
    rows: u64,
    usable: u64,
    tokens: u64,
    vocab: u32,
}

/// Picks a token for each row of `logits` `[rows, vocab]`, which are on a device; none where nothing
/// can be chosen: a NaN, an infinity, or all masked. The logits are edited in place.
///
/// # Errors
/// When the logits are on the host, rows are missing, or an edit is outside.
pub fn sample(
    logits: &Activations,
    rows: &[SampleRow],
    edits: &[TokenEdit],
) -> Result<Vec<Option<u32>>> {
    let (Some(buffer), vocab) = (logits.device(), logits.width()) else {
        bail!("sample: the logits are on the host")
    };
    if rows.len() != logits.rows() {
        bail!("sample: {} rows of logits for {}", logits.rows(), rows.len())
    }
    let inside =
        |edit: &&TokenEdit| edit.row as usize >= rows.len() || edit.token as usize >= vocab;
    if let Some(edit) = edits.iter().find(inside) {
        bail!("sample: an edit is outside of {} rows of {vocab}: {edit:?}", rows.len())
    }
    let gpu = buffer.gpu();
    let (params, results) = (gpu.upload(rows)?, gpu.upload(&vec![1u32; 2 * rows.len()])?);
    let mut args = SampleArgs {
        logits: buffer.place(),
        rows: params.place(),
        usable: results.place(),
        tokens: 0,
        vocab: vocab as u32,
    };
    let grid = [rows.len() as u32, 1, 1];
    let launch = Launch { kernel: "sample", grid, threads: 512, shared: 0 };
    if !edits.is_empty() {
        // SAFETY: there are parameters and results for each row of logits.
        unsafe { gpu.launch(launch, &args)? };
        let edits_on_device = gpu.upload(edits)?;
        let args = EditArgs {
            logits: buffer.place(),
            rows: params.place(),
            edits: edits_on_device.place(),
            num_edits: edits.len() as u32,
            vocab: vocab as u32,
        };
        let grid = [edits.len().div_ceil(256) as u32, 1, 1];
        let launch = Launch { kernel: "edit_logits", grid, threads: 256, shared: 0 };
        // SAFETY: every edit is of a row and token that exist.
        unsafe { gpu.launch(launch, &args)? };
    }
    args.tokens = results.place() + (rows.len() * 4) as u64;
    // SAFETY: as above.
    unsafe { gpu.launch(launch, &args)? };
    let mut found = vec![0u32; 2 * rows.len()];
    results.download(&mut found)?;
    let (usable, tokens) = found.split_at(rows.len());
    Ok(usable.iter().zip(tokens).map(|(&usable, &token)| (usable == 1).then_some(token)).collect())
}
