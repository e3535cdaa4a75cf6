//! Prompts that are repeatable, differ where they should, and share what they should.

use serde_json::{Value, json};

/// Short common words: most tokenizers make one or two tokens of each.
const WORDS: &[&str] = &[
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world",
    "school", "state", "family", "student", "group", "country", "problem", "hand", "part", "place",
    "case", "week", "company", "system", "program", "question", "work", "number", "night", "point",
    "home", "water", "room", "mother", "area", "money", "story", "fact", "month", "lot", "right",
    "study", "book", "eye", "job", "word", "business", "issue", "side", "kind", "head", "house",
    "service", "friend", "father", "power", "hour", "game", "line", "end", "member", "law", "car",
];

/// What every request of a run has in common, and how each one differs.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) model: String,
    pub(super) seed: u64,
    pub(super) prompt_words: usize,
    /// Of these, the first ones, the same in all prompts.
    pub(super) shared_words: usize,
    pub(super) output_tokens: usize,
}

impl Workload {
    /// The same shape with other prompts, so that it warms no prefix cache.
    pub(super) fn warm_up(&self) -> Self {
        Self { seed: self.seed ^ 0x5eed, ..self.clone() }
    }

    /// Body of request number `index` for `/v1/completions`.
    pub(super) fn body(&self, index: usize) -> Value {
        json!({
            "model": self.model,
            "prompt": self.prompt(index),
            "max_tokens": self.output_tokens,
            "min_tokens": self.output_tokens,
            "ignore_eos": true,
            "temperature": 0,
            "stream": true,
            "stream_options": { "include_usage": true },
        })
    }

    fn prompt(&self, index: usize) -> String {
        let mut shared = SplitMix(self.seed);
        let mut own = SplitMix(self.seed.wrapping_add(1 + index as u64).wrapping_mul(0x9e37_79b9));
        let words = (0..self.prompt_words.max(1)).map(|at| {
            let source = if at < self.shared_words { &mut shared } else { &mut own };
            WORDS[(source.next() % WORDS.len() as u64) as usize]
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Clone, Debug)]
pub(super) struct SplitMix(pub(super) u64);

impl SplitMix {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `(0, 1]`.
    pub(super) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_share_their_prefix_and_nothing_else_and_repeat_with_the_seed() {
        let workload = Workload {
            model: "m".to_owned(),
            seed: 7,
            prompt_words: 40,
            shared_words: 30,
            output_tokens: 1,
        };
        let split = |index| -> Vec<String> {
            workload.prompt(index).split(' ').map(str::to_owned).collect()
        };
        let (a, b) = (split(0), split(1));
        assert_eq!((a.len(), &a[..30]), (40, &b[..30]));
        assert_ne!(a[30..], b[30..]);
        assert_eq!(a, split(0));
        assert_ne!(workload.warm_up().prompt(0), workload.prompt(0));
    }
}
