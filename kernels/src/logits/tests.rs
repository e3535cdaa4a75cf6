//! Tests of `logits`.

use super::philox::{TokenNoise, philox4x32_10};
use super::*;

/// Numbers without a pattern, with ties, both infinities left out.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..count).map(|_| f32::from((next() % 512) as u16) / 16.0 - 20.0).collect()
}

/// Lengths around the borders of lanes and blocks.
const LENGTHS: [usize; 9] = [1, 15, 16, 63, 64, 65, 1024, 1500, 5000];

fn first_of_the_greatest(values: &[f32]) -> usize {
    (0..values.len()).rev().max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap()
}

#[test]
fn a_scan_finds_the_first_of_the_greatest() {
    for (seed, len) in (1..).zip(LENGTHS) {
        let values = values(len, seed);
        for isa in Isa::available() {
            let scan = isa.run(ScanKernel(&values));
            let argmax = first_of_the_greatest(&values);
            assert_eq!(scan, Scan { max: values[argmax], argmax, is_usable: true });
        }
    }
    let infinity = f32::NEG_INFINITY;
    assert_eq!(scan(&[1.0, 3.0, 3.0, infinity]).argmax, 1);
    assert_eq!(scan(&[-0.0, 0.0]).argmax, 0);
}

#[test]
fn a_scan_notices_what_cannot_be_sampled() {
    for isa in Isa::available() {
        let is_usable = |values: &[f32]| isa.run(ScanKernel(values)).is_usable;
        for len in LENGTHS {
            for at in [0, len / 2, len - 1] {
                for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
                    let mut values = values(len, 7);
                    values[at] = bad;
                    assert!(!is_usable(&values), "{bad} at {at} of {len}");
                }
                let mut values = vec![f32::NEG_INFINITY; len];
                assert!(!is_usable(&values));
                values[at] = -1e30;
                assert!(is_usable(&values));
            }
        }
        assert!(!is_usable(&[]));
    }
}

#[test]
fn exp_is_within_a_few_units_of_the_exact_value() {
    assert_eq!((exp(0.0), exp(-87.5), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    let mut worst = 0.0f64;
    for i in 0..87_000 {
        let x = -(i as f32) * 0.001;
        let exact = f64::from(x).exp();
        worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
    }
    assert!(worst < 3.0 * f64::from(f32::EPSILON), "{worst:e}");
    let rising: Vec<f32> = (0..80_000).map(|i| exp(-80.0 + i as f32 * 0.001)).collect();
    assert!(rising.is_sorted());
}

#[test]
fn sums_are_the_same_on_every_path() {
    for (seed, len) in (1..).zip(LENGTHS) {
        let logits = values(len, seed);
        let max = scan(&logits).max;
        let mut expected = Vec::new();
        for isa in Isa::available() {
            let mut out = vec![0.0; len];
            isa.run(WeightsKernel { logits: &logits, max, temperature: 0.7, out: &mut out });
            let total = isa.run(MassKernel(&out));
            let sum = isa.run(SumExpKernel { logits: &logits, max });
            let in_order: f64 = out.iter().map(|&weight| mass(weight)).sum();
            assert_eq!(total.to_bits(), in_order.to_bits());
            let bits: Vec<u32> = out.iter().map(|weight| weight.to_bits()).collect();
            expected.push((bits, total.to_bits(), sum.to_bits()));
        }
        assert!(expected.windows(2).all(|pair| pair[0] == pair[1]));
    }
    assert!((log_sum_exp(&[0.0, 0.0, 0.0, 0.0], 0.0) - 4.0f64.ln()).abs() < 1e-12);
    assert!((log_sum_exp(&[1000.0, f32::NEG_INFINITY], 1000.0) - 1000.0).abs() < 1e-12);
}

#[test]
fn the_largest_are_those_that_a_sort_puts_first() {
    for (seed, len) in (1..).zip(LENGTHS) {
        let values = values(len, seed);
        let mut sorted: Vec<u32> = (0..len as u32).collect();
        sorted.sort_by(|&a, &b| values[b as usize].total_cmp(&values[a as usize]));
        for k in [0, 1, 2, 40, 63, 64, 65, 700, 5000] {
            let mut ids = Vec::new();
            largest(&values, k, &mut ids);
            ids.sort_unstable();
            let mut expected = sorted[..k.min(len)].to_vec();
            expected.sort_unstable();
            assert_eq!(ids, expected, "{k} of {len}");
        }
    }
}

#[test]
fn a_threshold_keeps_what_reaches_it() {
    let values = values(1000, 3);
    for threshold in [-30.0, -3.0, 10.0, 100.0] {
        let mut ids = vec![9];
        at_least(&values, threshold, &mut ids);
        let expected = (0..1000).filter(|&id| threshold <= values[id as usize]);
        assert_eq!(ids, expected.collect::<Vec<u32>>());
    }
    for count in [1.0, 2.0, 1e9] {
        let least = weight_of_mass(count);
        assert!(mass(least) <= count && count * 0.99 <= mass(least * 1.01) + 1.0);
    }
}

#[test]
fn a_race_of_all_is_won_by_the_winner_of_single_starts() {
    for (seed, len) in (1..).zip(LENGTHS) {
        let logits = values(len, seed);
        let mut all = Vec::new();
        weights(&logits, scan(&logits).max, 4.0, &mut all);
        for position in 0..40 {
            let noise = TokenNoise::new(u64::from(seed), position);
            let mut single = Race::new(0, 0.01, noise.clone());
            (0..len).rev().for_each(|id| single.enter(id as u32, all[id]));
            for isa in Isa::available() {
                let mut race = Race::new(0, 0.01, noise.clone());
                isa.run(race::AllKernel { race: &mut race, weights: &all });
                assert_eq!(race.winner(), single.winner(), "{len} {position}");
            }
        }
    }
}

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
        let counters = counter.map(|word| [word; 1]);
        assert_eq!(philox4x32_10(counters, key).map(|[word]| word), expected);
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
