//! Identity of KV blocks: SipHash-2-4 with 128 bits, each block keyed by the one before it.

/// Whose blocks are found by whom: K/V depend on all of this besides the tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheScope {
    /// Which package computed them.
    pub package: u128,
    /// With which adapter; zero without one.
    pub adapter: u128,
    /// Which tenant they belong to; secret to it, or zero for all.
    pub salt: u128,
}

/// Identity of a full block: its tokens, everything before them, and its scope.
///
/// A hit in the prefix cache is trusted without comparing tokens, so the hash must not collide by
/// chance (128 bits) nor by intent: the first key is the tenant's secret salt, and whoever does not
/// know the key cannot aim at an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockHash(u128);

impl BlockHash {
    /// The start of the chains of a scope.
    pub fn root(scope: &CacheScope) -> Self {
        let words = |id: u128| [0, 32, 64, 96].map(|shift| (id >> shift) as u32);
        let [package, adapter] = [scope.package, scope.adapter].map(words);
        Self(siphash_128(scope.salt, &[package, adapter].concat()))
    }

    /// Extends `self` by one block of tokens.
    #[must_use]
    pub fn chain(self, tokens: &[u32]) -> Self {
        Self(siphash_128(self.0, tokens))
    }
}

/// SipHash-2-4-128 of the tokens as little-endian bytes (Aumasson and Bernstein, 2012).
fn siphash_128(key: u128, tokens: &[u32]) -> u128 {
    let (k0, k1) = (key as u64, (key >> 64) as u64);
    let mut state = State([
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ]);
    let (pairs, rest) = tokens.as_chunks::<2>();
    for &[low, high] in pairs {
        state.absorb(u64::from(low) | u64::from(high) << 32);
    }
    let num_bytes = tokens.len() as u64 * 4;
    state.absorb(num_bytes << 56 | rest.first().map_or(0, |&token| u64::from(token)));
    state.0[2] ^= 0xee;
    let low = state.finish();
    state.0[1] ^= 0xdd;
    let high = state.finish();
    u128::from(high) << 64 | u128::from(low)
}

struct State([u64; 4]);

impl State {
    fn absorb(&mut self, word: u64) {
        self.0[3] ^= word;
        self.rounds(2);
        self.0[0] ^= word;
    }

    fn finish(&mut self) -> u64 {
        self.rounds(4);
        self.0.iter().fold(0, |all, v| all ^ v)
    }

    fn rounds(&mut self, count: usize) {
        let [mut a, mut b, mut c, mut d] = self.0;
        for _ in 0..count {
            a = a.wrapping_add(b);
            c = c.wrapping_add(d);
            b = b.rotate_left(13) ^ a;
            d = d.rotate_left(16) ^ c;
            a = a.rotate_left(32).wrapping_add(d);
            c = c.wrapping_add(b);
            b = b.rotate_left(17) ^ c;
            d = d.rotate_left(21) ^ a;
            c = c.rotate_left(32);
        }
        self.0 = [a, b, c, d];
    }
}

#[cfg(test)]
mod tests;
