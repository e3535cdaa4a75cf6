//! Every vector path against the portable one, and rows against themselves in any batch.

use half::bf16;

use super::*;

fn values(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_769).wrapping_add(1);
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
    .take(len)
    .collect()
}

/// `[rows][depth]` packed by `CHUNK`, without padding after the last value.
fn pack(rows: &[Vec<f32>]) -> Vec<f32> {
    let (num_rows, depth) = (rows.len(), rows[0].len());
    let mut packed = vec![f32::NAN; num_rows * depth.next_multiple_of(CHUNK)];
    for (index, row) in rows.iter().enumerate() {
        for (k, &x) in row.iter().enumerate() {
            packed[(k / CHUNK * num_rows + index) * CHUNK + k % CHUNK] = x;
        }
    }
    let last = depth - 1;
    packed.truncate(last / CHUNK * CHUNK * num_rows + (num_rows - 1) * CHUNK + last % CHUNK + 1);
    packed
}

/// Words of `[depth][lanes]` values, which must be exact in `bf16`, and the words of one group.
fn to_words(values: &[f32], lanes: usize) -> (Vec<u32>, usize) {
    let group_words = (values.len() / lanes).next_multiple_of(32) / 2 * 16;
    let mut words = vec![0u32; lanes / 16 * group_words];
    for (index, &value) in values.iter().enumerate() {
        let (k, lane) = (index / lanes, index % lanes);
        words[lane / 16 * group_words + k / 2 * 16 + lane % 16] |=
            u32::from(bf16::from_f32(value).to_bits()) << (k % 2 * 16);
    }
    (words, group_words)
}

fn right(panel: Panel<'_>, stride: usize) -> Right<'_> {
    Right { panel, stride, ahead: Ahead::NOTHING }
}

fn check<const GROUPS: usize>() {
    let width = GROUPS * GROUP_ROWS;
    for isa in Isa::available() {
        for depth in [1, 2, 31, 32, 33, 64, 100] {
            let stride = width + 32;
            let w: Vec<f32> = values(7, depth * stride);
            let w: Vec<f32> = w.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
            let (words, group_words) = to_words(&w, stride);
            for rows in 1..=max_rows::<GROUPS>(isa) {
                let left: Vec<_> = (0..rows).map(|row| values(row as u32, depth)).collect();
                let packed = pack(&left);
                let start = values(99, rows * width);
                let run = |panel, stride| {
                    let mut c = start.clone();
                    let left = Left { values: &packed, rows, depth };
                    accumulate::<GROUPS>(isa, left, right(panel, stride), &mut c);
                    c
                };
                let found = run(Panel::F32(&w), stride);
                let narrow = run(Panel::Bf16(&words), group_words);
                let same = found.iter().zip(&narrow).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{isa:?}: weight types disagree at {rows} rows, depth {depth}");
                for (row, left) in left.iter().enumerate() {
                    for lane in 0..width {
                        let expected: f64 = f64::from(start[row * width + lane])
                            + (0..depth)
                                .map(|k| f64::from(left[k]) * f64::from(w[k * stride + lane]))
                                .sum::<f64>();
                        let found = f64::from(found[row * width + lane]);
                        assert!((found - expected).abs() < 1e-5, "{isa:?} {rows} {depth}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_path_computes_the_product_for_every_number_of_rows() {
    check::<1>();
    check::<2>();
}

#[test]
fn vector_paths_agree_bit_for_bit() {
    let fused: Vec<_> =
        Isa::available().into_iter().filter(|isa| isa.path() != Path::Portable).collect();
    let (depth, w) = (77, values(1, 77 * 64));
    let run = |isa: Isa, rows: &[Vec<f32>]| {
        let mut c = vec![0f32; rows.len() * 64];
        let packed = pack(rows);
        let left = Left { values: &packed, rows: rows.len(), depth };
        accumulate::<2>(isa, left, right(Panel::F32(&w), 64), &mut c);
        c.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let rows: Vec<_> = (0..3).map(|row| values(row, depth)).collect();
    for pair in fused.windows(2) {
        assert_eq!(run(pair[0], &rows), run(pair[1], &rows));
    }
}

#[test]
fn incomplete_operands_are_refused() {
    let run = |left: usize, weights: usize, result: usize| {
        let (a, w, mut c) = (vec![0f32; left], vec![0f32; weights], vec![0f32; result]);
        let left = Left { values: &a, rows: 1, depth: 40 };
        std::panic::catch_unwind(move || {
            accumulate::<1>(Isa::detected(), left, right(Panel::F32(&w), 32), &mut c);
        })
        .is_ok()
    };
    assert!(run(40, 40 * 32, 32));
    assert!(!run(39, 40 * 32, 32));
    assert!(!run(40, 40 * 32 - 1, 32));
    assert!(!run(40, 40 * 32, 31));
}
