//! Guesses what comes next from what was there before: no second model, only the sequence itself.
//!
//! A guess is checked, never trusted: the model computes the drafted tokens in the same step, each
//! row is sampled as if the tokens before it were certain, and what differs is thrown away with all
//! that follows it. Because a row's logits depend on no other row and its draw on seed and position
//! alone, what stays is exactly what one token a step would have given.

use std::collections::HashMap;
use std::hash::Hash;

#[cfg(test)]
mod tests;

/// Tokens that a first guess has at most.
const FIRST_DRAFT: usize = 4;

/// Where the last tokens of a sequence were before, and how far guesses went well.
#[derive(Clone, Debug)]
pub(crate) struct Speculation {
    long: Occurrences<4>,
    short: Occurrences<2>,
    /// Tokens of the next guess.
    length: usize,
    max_length: usize,
}

impl Speculation {
    /// Guesses of at most `max_length` tokens.
    pub(crate) fn new(max_length: usize) -> Self {
        Self {
            long: Occurrences::default(),
            short: Occurrences::default(),
            length: FIRST_DRAFT.min(max_length),
            max_length,
        }
    }

    /// Up to `limit` tokens that may follow `tokens`: those that followed its last four the last
    /// time, or else its last two; when they reach the end, themselves once more. Sees only what
    /// was added to `tokens` since the last call.
    pub(crate) fn guess(&mut self, tokens: &[u32], limit: usize) -> Vec<u32> {
        self.long.update(tokens);
        self.short.update(tokens);
        let Some(from) = self.long.find(tokens).or_else(|| self.short.find(tokens)) else {
            return Vec::new();
        };
        let period = tokens.len() - from;
        (0..self.length.min(limit)).map(|at| tokens[from + at % period]).collect()
    }

    /// Learns how a guess went: the next one is longer, or as long as this one was right.
    pub(crate) fn checked(&mut self, num_guessed: usize, num_right: usize) {
        let length = if num_right == num_guessed { num_guessed * 2 } else { num_right };
        self.length = length.clamp(1, self.max_length);
    }
}

/// Runs of `N` tokens, and what followed them last.
#[derive(Clone, Debug)]
struct Occurrences<const N: usize>
where
    [u32; N]: Eq + Hash,
{
    /// Index of the token after the last occurrence.
    next: HashMap<[u32; N], usize>,
    /// The runs that end before this index are known.
    num_known: usize,
}

impl<const N: usize> Default for Occurrences<N> {
    fn default() -> Self {
        Self { next: HashMap::new(), num_known: N }
    }
}

impl<const N: usize> Occurrences<N> {
    /// Learns the runs that have a token after them.
    fn update(&mut self, tokens: &[u32]) {
        for end in self.num_known..tokens.len() {
            if let Some(run) = tokens[..end].last_chunk::<N>() {
                self.next.insert(*run, end);
            }
        }
        self.num_known = self.num_known.max(tokens.len());
    }

    fn find(&self, tokens: &[u32]) -> Option<usize> {
        self.next.get(tokens.last_chunk::<N>()?).copied()
    }
}
