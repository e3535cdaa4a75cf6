//! A short run of the simulation; `cargo run --release -p pinion-benches --bin simulation` is long.

use std::time::Duration;

use super::{Summary, simulate};

#[test]
fn minutes_of_mixed_load_keep_every_invariant_and_end_with_every_block_free() {
    let runs: Vec<Summary> = (0..6).map(|seed| simulate(seed, Duration::from_mins(10))).collect();
    let total = |of: fn(&Summary) -> u64| runs.iter().map(of).sum::<u64>();
    // All that the load is made of has happened.
    for (what, count) in [
        ("completed", total(|run| run.completed)),
        ("aborted", total(|run| run.aborted)),
        ("refused", total(|run| run.refused)),
        ("late", total(|run| run.late)),
        ("poisoned", total(|run| run.poisoned)),
        ("preempted", total(|run| run.preemptions)),
        ("found", total(|run| run.prefix_hits)),
        ("guessed", total(|run| run.accepted_draft_tokens)),
    ] {
        assert!(10 < count, "{what}: {count}: {runs:?}");
    }
}

#[test]
fn a_seed_says_all_there_is() {
    let run = || simulate(7, Duration::from_mins(1));
    assert_eq!(run(), run());
    assert_ne!(run(), simulate(8, Duration::from_mins(1)));
}
