//! Tests of `block_hash`.

use super::{BlockHash, CacheScope, siphash_128};

/// `vectors_sip128` of the reference implementation, messages of 0, 4 and 8 bytes.
#[test]
fn the_known_answers_of_siphash_come_out() {
    let key = u128::from_le_bytes(std::array::from_fn(|i| i as u8));
    let tokens = [0x0302_0100, 0x0706_0504];
    let answers = [
        [163, 129, 127, 4, 186, 37, 168, 230, 109, 246, 114, 20, 199, 85, 2, 147],
        [248, 129, 100, 193, 45, 156, 143, 175, 125, 15, 110, 124, 123, 205, 85, 121],
        [59, 98, 169, 186, 98, 88, 245, 97, 15, 131, 226, 100, 243, 20, 151, 180],
    ];
    for (len, expected) in answers.into_iter().enumerate() {
        assert_eq!(siphash_128(key, &tokens[..len]).to_le_bytes(), expected, "{len} tokens");
    }
}

#[test]
fn a_chain_depends_on_its_scope_its_tokens_and_their_order() {
    let chain_in = |package, adapter, salt, blocks: &[&[u32]]| {
        let root = BlockHash::root(&CacheScope { package, adapter, salt });
        blocks.iter().fold(root, |hash, tokens| hash.chain(tokens))
    };
    let chain = |salt, blocks: &[&[u32]]| chain_in(7, 0, salt, blocks);
    let base = chain(1, &[&[1, 2], &[3, 4]]);
    assert_eq!(base, chain(1, &[&[1, 2], &[3, 4]]));
    for other in [
        chain(2, &[&[1, 2], &[3, 4]]),
        chain_in(8, 0, 1, &[&[1, 2], &[3, 4]]),
        chain_in(7, 1, 1, &[&[1, 2], &[3, 4]]),
        chain_in(0, 7, 1, &[&[1, 2], &[3, 4]]),
        chain(1 << 64 | 1, &[&[1, 2], &[3, 4]]),
        chain(1, &[&[3, 4], &[1, 2]]),
        chain(1, &[&[1, 2, 3, 4]]),
        chain(1, &[&[3, 4]]),
    ] {
        assert_ne!(base, other);
    }
}
