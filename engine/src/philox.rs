//! Philox4x32-10: a random number generator that is a function of a counter, so it has no state
//! to lose (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011).

/// Four random words for a counter and a key.
pub(crate) fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let product0 = u64::from(counter[0]) * 0xd251_1f53;
        let product1 = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [
            (product1 >> 32) as u32 ^ counter[1] ^ key[0],
            product1 as u32,
            (product0 >> 32) as u32 ^ counter[3] ^ key[1],
            product0 as u32,
        ];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

/// The random numbers of one token: one for each candidate, whatever the other candidates are.
pub(crate) struct TokenNoise {
    key: [u32; 2],
    position: u64,
    index: u32,
    words: [u32; 4],
}

impl TokenNoise {
    /// For the token at `position` of a sequence under `seed`.
    pub(crate) fn new(seed: u64, position: usize) -> Self {
        let mut noise = Self {
            key: [seed as u32, (seed >> 32) as u32],
            position: position as u64,
            index: 0,
            words: [0; 4],
        };
        noise.words = noise.block(0);
        noise
    }

    /// Uniform in the open interval from 0 to 1. Ascending tokens are cheapest.
    pub(crate) fn uniform(&mut self, token: u32) -> f64 {
        let index = token / 4;
        if index != self.index {
            self.words = self.block(index);
            self.index = index;
        }
        (f64::from(self.words[(token % 4) as usize]) + 0.5) / 4_294_967_296.0
    }

    fn block(&self, index: u32) -> [u32; 4] {
        let position = [self.position as u32, (self.position >> 32) as u32];
        philox4x32_10([index, position[0], position[1], 0], self.key)
    }
}

#[cfg(test)]
mod tests;
