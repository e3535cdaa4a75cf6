//! Philox4x32-10: a random number generator that is a function of a counter, so it has no state
//! to lose (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011).
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

/// Counters that are computed side by side.
pub(super) const WIDTH: usize = 16;

const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// Four random words for each of `N` counters, all under one key: word by word.
#[inline(always)]
pub(super) fn philox4x32_10<const N: usize>(
    mut counters: [[u32; N]; 4],
    mut key: [u32; 2],
) -> [[u32; N]; 4] {
    for _ in 0..10 {
        let [c0, c1, c2, c3] = counters;
        for lane in 0..N {
            let product0 = u64::from(c0[lane]) * MULTIPLIERS[0];
            let product1 = u64::from(c2[lane]) * MULTIPLIERS[1];
            counters[0][lane] = (product1 >> 32) as u32 ^ c1[lane] ^ key[0];
            counters[1][lane] = product1 as u32;
            counters[2][lane] = (product0 >> 32) as u32 ^ c3[lane] ^ key[1];
            counters[3][lane] = product0 as u32;
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counters
}

/// The random numbers of one token: one for each candidate, whatever the other candidates are.
#[derive(Clone, Debug)]
pub struct TokenNoise {
    key: [u32; 2],
    position: [u32; 2],
    index: u32,
    words: [u32; 4],
}

impl TokenNoise {
    /// For the token at `position` of a sequence under `seed`.
    pub fn new(seed: u64, position: usize) -> Self {
        let key = [seed as u32, (seed >> 32) as u32];
        let position = position as u64;
        let position = [position as u32, (position >> 32) as u32];
        let mut noise = Self { key, position, index: 0, words: [0; 4] };
        noise.words = noise.block::<1>(0).map(|[word]| word);
        noise
    }

    /// Uniform in the open interval from 0 to 1. Ascending tokens are cheapest.
    pub fn uniform(&mut self, token: u32) -> f64 {
        let index = token / 4;
        if index != self.index {
            self.words = self.block::<1>(index).map(|[word]| word);
            self.index = index;
        }
        uniform(self.words[(token % 4) as usize])
    }

    /// The words of the tokens from `4 * index` on: word `w` of lane `l` is that of token
    /// `4 * (index + l) + w`.
    #[inline(always)]
    pub(super) fn block<const N: usize>(&self, index: u32) -> [[u32; N]; 4] {
        let mut indexes = [index; N];
        for (lane, index) in indexes.iter_mut().enumerate() {
            *index += lane as u32;
        }
        let position = self.position.map(|word| [word; N]);
        philox4x32_10([indexes, position[0], position[1], [0; N]], self.key)
    }
}

/// A word as a number in the open interval from 0 to 1.
#[inline(always)]
fn uniform(word: u32) -> f64 {
    (f64::from(word) + 0.5) / 4_294_967_296.0
}
