//! Tests of `philox`.

use super::{TokenNoise, philox4x32_10};

/// `tests/kat_vectors` of Random123 1.14.0, lines `philox4x32 10`.
#[test]
fn the_known_answers_of_random123_come_out() {
    let answers = [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];
    for (counter, key, expected) in answers {
        assert_eq!(philox4x32_10(counter, key), expected);
    }
}

#[test]
fn noise_depends_on_seed_position_and_token_and_on_nothing_else() {
    let one = |seed, position, token| TokenNoise::new(seed, position).uniform(token).to_bits();
    let mut shared = TokenNoise::new(7, 3);
    for token in [9, 0, 4, 9, 1000, 3] {
        assert_eq!(shared.uniform(token).to_bits(), one(7, 3, token));
    }
    let all = [
        one(7, 3, 9),
        one(8, 3, 9),
        one(7 + (1 << 32), 3, 9),
        one(7, 4, 9),
        one(7, 3 + (1 << 32), 9),
        one(7, 3, 10),
        one(7, 3, 13),
    ];
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b), "value {i} comes twice");
    }
}
