//! Sampling against the rules, written out plainly.

use std::cmp::Ordering;

use candle_core::{Device as Host, Tensor};
use pinion_kernels::logits::{TokenNoise, exp, mass};
use pinion_kernels::{Activations, SampleRow, TokenEdit, sample};

use super::{device, values};

fn row(seed: u64) -> SampleRow {
    SampleRow {
        seed,
        position: 1000 + seed,
        temperature: 0.8,
        top_p: 1.0,
        min_p: 0.0,
        repetition: 1.0,
        frequency: 0.0,
        presence: 0.0,
        top_k: 0,
        padding: 0,
    }
}

/// The rules of the sampler on the host: sort, cut, race.
fn expected(logits: &[f32], row: &SampleRow) -> u32 {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let best_first = |a: &u32, b: &u32| {
        let (x, y) = (logits[*a as usize], logits[*b as usize]);
        y.partial_cmp(&x).unwrap_or(Ordering::Equal).then(a.cmp(b))
    };
    order.sort_by(best_first);
    if row.temperature == 0.0 {
        return order[0];
    }
    let max = logits[order[0] as usize];
    let weight = |id: u32| exp((logits[id as usize] - max) / row.temperature);
    if 0 < row.top_k {
        order.truncate(row.top_k as usize);
    }
    if row.top_p < 1.0 {
        let total: f64 = order.iter().map(|&id| mass(weight(id))).sum();
        let target = (total * f64::from(row.top_p)).max(1.0);
        let mut so_far = 0.0;
        let needed = order.iter().take_while(|&&id| {
            let goes_on = so_far < target;
            so_far += mass(weight(id));
            goes_on
        });
        let needed = needed.count();
        order.truncate(needed);
    }
    let mut noise = TokenNoise::new(row.seed, row.position as usize);
    let time = |id: u32, noise: &mut TokenNoise| -noise.uniform(id).ln() / f64::from(weight(id));
    let runs = |id: &u32| weight(*id) != 0.0 && row.min_p <= weight(*id);
    order.retain(runs);
    order.sort_unstable();
    let times: Vec<f64> = order.iter().map(|&id| time(id, &mut noise)).collect();
    let first = (0..order.len()).min_by(|&a, &b| times[a].total_cmp(&times[b])).unwrap();
    order[first]
}

fn activations(logits: &[Vec<f32>]) -> Activations {
    let shape = (logits.len(), logits[0].len());
    Activations::from_tensor(&Tensor::from_vec(logits.concat(), shape, &Host::Cpu).unwrap())
        .unwrap()
}

#[test]
fn tokens_are_those_of_the_rules() {
    let Some(gpu) = device() else { return };
    for vocab in [1, 31, 700, 5003] {
        let mut logits = Vec::new();
        let mut rows = Vec::new();
        for (index, (top_k, top_p, min_p, temperature)) in [
            (0, 1.0, 0.0, 0.0),
            (0, 1.0, 0.0, 1.0),
            (0, 1.0, 0.1, 0.7),
            (1, 1.0, 0.0, 1.5),
            (5, 1.0, 0.0, 1.5),
            (40, 0.5, 0.0, 0.9),
            (0, 0.9, 0.0, 0.6),
            (0, 0.3, 0.02, 2.0),
            (600, 0.99, 0.0, 1.0),
        ]
        .into_iter()
        .enumerate()
        {
            for seed in 0..4u64 {
                // Rounded, so that there are ties; some are impossible.
                let mut one = values(index * 10 + seed as usize, vocab);
                one.iter_mut().for_each(|x| *x = (*x * 40.0).round() / 4.0);
                one.iter_mut().skip(1).step_by(7).for_each(|x| *x = f32::NEG_INFINITY);
                logits.push(one);
                rows.push(SampleRow { top_k, top_p, min_p, temperature, ..row(seed) });
            }
        }
        let found = sample(&activations(&logits).copy_to(&gpu).unwrap(), &rows, &[]).unwrap();
        for ((logits, row), found) in logits.iter().zip(&rows).zip(found) {
            assert_eq!(found, Some(expected(logits, row)), "{vocab} tokens, {row:?}");
        }
    }
}

#[test]
fn rows_without_a_usable_token_have_none() {
    let Some(gpu) = device() else { return };
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let logits = [vec![1.0, nan, 0.0], vec![0.0, inf, 0.0], vec![-inf; 3], vec![0.0, -inf, 2.0]];
    let rows = [row(0); 4].map(|row| SampleRow { temperature: 0.0, ..row });
    let found = sample(&activations(&logits).copy_to(&gpu).unwrap(), &rows, &[]).unwrap();
    assert_eq!(found, [None, None, None, Some(2)]);
}

#[test]
fn masks_biases_and_penalties_act_before_the_choice() {
    let Some(gpu) = device() else { return };
    let edit = TokenEdit { row: 0, token: 0, masked: 0, penalized: 0, count: 0, bias: 0.0 };
    let greedy = SampleRow { temperature: 0.0, ..row(0) };
    let cases: [(SampleRow, Vec<TokenEdit>, Option<u32>); 5] = [
        (greedy, vec![TokenEdit { token: 2, masked: 1, ..edit }], Some(1)),
        (greedy, vec![TokenEdit { bias: 5.0, ..edit }], Some(0)),
        (
            SampleRow { repetition: 4.0, ..greedy },
            vec![TokenEdit { token: 2, penalized: 1, ..edit }],
            Some(1),
        ),
        (
            SampleRow { frequency: 1.0, presence: 0.25, ..greedy },
            vec![TokenEdit { token: 2, penalized: 1, count: 2, ..edit }],
            Some(1),
        ),
        (greedy, (0..3).map(|token| TokenEdit { token, masked: 1, ..edit }).collect(), None),
    ];
    for (row, edits, expected) in cases {
        let logits = activations(&[vec![-1.0, 1.0, 3.0]]).copy_to(&gpu).unwrap();
        assert_eq!(sample(&logits, &[row], &edits).unwrap(), [expected], "{edits:?}");
        assert!(sample(&logits, &[row], &[TokenEdit { token: 3, ..edit }]).is_err());
    }
}
