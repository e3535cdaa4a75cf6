//! Which experts a token is sent to, and how their results come back.

use candle_core::{Result, bail};

use super::for_each_row;
use super::select_rows::gather_rows;
use crate::Activations;
use crate::cpu::Cpu;

/// How a router turns logits into a choice.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterParams {
    /// What logits become before they are compared.
    pub scoring: Scoring,
    /// Experts of a token.
    pub top_k: usize,
    /// Added to the scores that are compared, not to those that weigh; one an expert.
    pub bias: Option<Vec<f32>>,
    /// Limits the choice to some groups of neighbouring experts.
    pub groups: Option<RouterGroups>,
    /// Whether the weights of a token sum to one.
    pub normalize: bool,
    /// What weights are multiplied by.
    pub scale: f32,
}

/// What logits become.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scoring {
    /// Shares of all experts.
    Softmax,
    /// Each for itself.
    Sigmoid,
}

/// Groups of neighbouring experts, all of one size.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RouterGroups {
    /// How many there are.
    pub count: usize,
    /// How many a token may use.
    pub kept: usize,
    /// Groups are compared by the sum of this many best scores.
    pub best: usize,
}

/// The experts of each token of a step.
///
/// A token's results are added in the order of its experts' numbers, so they depend on no neighbour.
#[derive(Debug)]
pub struct Routes {
    top_k: usize,
    /// `[tokens][top_k]`.
    weights: Vec<f32>,
    /// Where each of them lies when rows are in the order of their experts.
    slots: Vec<u32>,
    /// The token of each slot.
    tokens: Vec<u32>,
    /// Where the slots of each expert end.
    ends: Vec<usize>,
}

/// Chooses by `logits` `[n, num_experts]`; of equals, the first.
///
/// # Errors
/// When the parameters do not fit the number of experts.
pub fn route(logits: &Activations, params: &RouterParams) -> Result<Routes> {
    let num_experts = logits.width();
    params.check(num_experts)?;
    let (num_tokens, top_k) = (logits.rows(), params.top_k);
    let mut experts = Vec::with_capacity(num_tokens * top_k);
    let mut weights = Vec::with_capacity(num_tokens * top_k);
    let mut scores = Vec::new();
    for token in 0..num_tokens {
        scores.clear();
        scores.extend_from_slice(logits.view().row(token));
        params.scoring.apply(&mut scores);
        let chosen = params.choose(&scores);
        let sum: f32 = chosen.iter().map(|&expert| scores[expert]).sum();
        let factor = if params.normalize { params.scale / (sum + 1e-20) } else { params.scale };
        weights.extend(chosen.iter().map(|&expert| scores[expert] * factor));
        experts.extend(chosen);
    }
    Ok(Routes::new(num_experts, top_k, &experts, weights))
}

impl RouterParams {
    /// Refuses what does not fit this number of experts.
    pub fn check(&self, num_experts: usize) -> Result<()> {
        let top_k = self.top_k;
        if top_k == 0 || num_experts < top_k {
            bail!("a router cannot choose {top_k} of {num_experts} experts")
        }
        if let Some(bias) = self.bias.as_ref().filter(|bias| bias.len() != num_experts) {
            bail!("a router of {num_experts} experts has a bias for {}", bias.len())
        }
        let Some(RouterGroups { count, kept, best }) = self.groups else { return Ok(()) };
        let size = num_experts.checked_div(count).unwrap_or(0);
        if size * count != num_experts || size < best || count < kept || kept * size < top_k {
            bail!("{kept} of {count} groups of {num_experts} experts do not hold {top_k}")
        }
        Ok(())
    }

    /// The experts of a token, in ascending order.
    fn choose(&self, scores: &[f32]) -> Vec<usize> {
        let mut ranks = scores.to_vec();
        if let Some(bias) = &self.bias {
            ranks.iter_mut().zip(bias).for_each(|(rank, bias)| *rank += bias);
        }
        if let Some(RouterGroups { count, kept, best }) = self.groups {
            let size = ranks.len() / count;
            let worth = |group: &[f32]| -> f32 {
                best_of(group, best).into_iter().map(|expert| group[expert]).sum()
            };
            let worths: Vec<f32> = ranks.chunks_exact(size).map(worth).collect();
            let kept = best_of(&worths, kept);
            for (group, ranks) in ranks.chunks_exact_mut(size).enumerate() {
                if !kept.contains(&group) {
                    ranks.fill(f32::NEG_INFINITY);
                }
            }
        }
        let mut chosen = best_of(&ranks, self.top_k);
        chosen.sort_unstable();
        chosen
    }
}

/// The places of the `count` largest values, largest first; of equals, the first.
fn best_of(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    // Not-a-numbers rank last, in their own order.
    let key = |index: usize| if values[index].is_nan() { f32::NEG_INFINITY } else { values[index] };
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
    order.truncate(count);
    order
}

impl Scoring {
    fn apply(self, scores: &mut [f32]) {
        match self {
            Self::Sigmoid => scores.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
            Self::Softmax => {
                let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                scores.iter_mut().for_each(|x| *x = (*x - max).exp());
                let sum: f32 = scores.iter().sum();
                scores.iter_mut().for_each(|x| *x /= sum);
            }
        }
    }
}

impl Routes {
    fn new(num_experts: usize, top_k: usize, experts: &[usize], weights: Vec<f32>) -> Self {
        let mut ends = vec![0; num_experts];
        experts.iter().for_each(|&expert| ends[expert] += 1);
        let mut next = 0;
        for end in &mut ends {
            // Meanwhile: where the slots of the expert begin.
            next += std::mem::replace(end, next);
        }
        let (mut slots, mut tokens) = (Vec::with_capacity(experts.len()), vec![0; experts.len()]);
        for (index, &expert) in experts.iter().enumerate() {
            let slot = ends[expert];
            ends[expert] += 1;
            tokens[slot] = (index / top_k) as u32;
            slots.push(slot as u32);
        }
        Self { top_k, weights, slots, tokens, ends }
    }

    /// Where the rows of each expert end in what [`Routes::gather`] gives.
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// The rows of `x` `[n, d]` in the order of the experts that they go to: `[n * top_k, d]`.
    ///
    /// # Errors
    /// When `x` is not of as many tokens.
    pub fn gather(&self, x: &Activations) -> Result<Activations> {
        gather_rows(x, &self.tokens)
    }

    /// Adds the weighted results `[n * top_k, d]` of the experts, in that order, to `sums` `[n, d]`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn add_to(&self, sums: &mut Activations, results: &Activations) -> Result<()> {
        let (top_k, width) = (self.top_k, results.width());
        if sums.width() != width
            || results.rows() != self.slots.len()
            || sums.rows() * top_k != self.slots.len()
        {
            let (rows, slots) = (sums.rows(), self.slots.len());
            bail!("routes: [{rows}, {}] cannot take [{slots}, {width}]", sums.width())
        }
        let results = results.view();
        for_each_row(&Cpu::current(), top_k, sums.values_mut(), width, |token, sums| {
            let routes = token * top_k..(token + 1) * top_k;
            for (&slot, &weight) in self.slots[routes.clone()].iter().zip(&self.weights[routes]) {
                for (sum, x) in sums.iter_mut().zip(results.row(slot as usize)) {
                    *sum += weight * x;
                }
            }
        });
        Ok(())
    }
}
