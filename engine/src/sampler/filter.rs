//! Which tokens `top_k` and `top_p` leave.

use std::cmp::Ordering;

use pinion_kernels::logits as rows;

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) id: u32,
    logit: f32,
    /// Probability relative to the most probable token, which has 1.
    pub(super) weight: f32,
}

/// A total order of the tokens of a row without NaN.
pub(super) fn best_first(logits: &[f32], a: u32, b: u32) -> Ordering {
    order((logits[a as usize], a), (logits[b as usize], b))
}

fn order(a: (f32, u32), b: (f32, u32)) -> Ordering {
    b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
}

/// The tokens of `ids`.
pub(super) fn collect(
    logits: &[f32],
    ids: &[u32],
    weight: impl Fn(f32) -> f32,
    candidates: &mut Vec<Candidate>,
) {
    candidates.clear();
    candidates.extend(ids.iter().map(|&id| {
        let logit = logits[id as usize];
        Candidate { id, logit, weight: weight(logit) }
    }));
}

/// Keeps the shortest run of best candidates that has `top_p` of their weight, at least one.
pub(super) fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f32) {
    if top_p < 1.0 {
        let total: f64 = candidates.iter().map(|one| rows::mass(one.weight)).sum();
        keep_mass(candidates, target(total, top_p));
    }
}

/// The shortest run of best tokens that has `top_p` of the weight of the row, at least one.
pub(super) fn collect_top_p(
    logits: &[f32],
    weights: &[f32],
    top_p: f32,
    ids: &mut Vec<u32>,
    candidates: &mut Vec<Candidate>,
) {
    let total = rows::total_mass(weights);
    let target = target(total, top_p);
    // All that are lighter than this have together no more than what may be left out.
    let threshold = rows::weight_of_mass((total - target) / weights.len() as f64);
    rows::at_least(weights, threshold, ids);
    candidates.clear();
    candidates.extend(ids.iter().map(|&id| {
        let at = id as usize;
        Candidate { id, logit: logits[at], weight: weights[at] }
    }));
    keep_mass(candidates, target);
}

fn target(total: f64, top_p: f32) -> f64 {
    (total * f64::from(top_p)).max(1.0)
}

/// Candidates from which on it pays to sort them into bins first.
const MIN_BINNED: usize = 512;
/// Of the bits of a weight, those that do not choose its bin.
const BIN_SHIFT: u32 = 19;
/// Weights are at most 1.
const NUM_BINS: usize = (1.0f32.to_bits() >> BIN_SHIFT) as usize + 1;

impl Candidate {
    /// A better candidate is never in a lower bin.
    fn bin(&self) -> usize {
        (self.weight.to_bits() >> BIN_SHIFT) as usize
    }
}

/// Moves all that are certainly part of the shortest run that has the mass to the front, drops all
/// that certainly are not, and says how many are certain and what mass they lack.
fn settle_bins(candidates: &mut Vec<Candidate>, mut target: f64) -> (usize, f64) {
    let mut bins = [0.0f64; NUM_BINS];
    candidates.iter().for_each(|one| bins[one.bin()] += rows::mass(one.weight));
    let mut border = NUM_BINS - 1;
    while 0 < border && bins[border] < target {
        target -= bins[border];
        border -= 1;
    }
    candidates.retain(|one| border <= one.bin());
    let mut num_certain = 0;
    for index in 0..candidates.len() {
        if border < candidates[index].bin() {
            candidates.swap(index, num_certain);
            num_certain += 1;
        }
    }
    (num_certain, target)
}

/// Keeps the shortest run of best candidates that has the mass, or all. Halves what is undecided
/// until one token is left, so it takes linear time.
fn keep_mass(candidates: &mut Vec<Candidate>, mut target: f64) {
    let mut kept = 0;
    if MIN_BINNED < candidates.len() {
        (kept, target) = settle_bins(candidates, target);
    }
    let mut end = candidates.len();
    while 1 < end - kept {
        let half = (end - kept) / 2;
        let undecided = &mut candidates[kept..end];
        undecided.select_nth_unstable_by(half, |a, b| order((a.logit, a.id), (b.logit, b.id)));
        let mass: f64 = undecided[..half].iter().map(|one| rows::mass(one.weight)).sum();
        if target <= mass {
            end = kept + half;
        } else {
            target -= mass;
            kept += half;
        }
    }
    candidates.truncate(end);
}
