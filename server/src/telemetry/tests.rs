//! Durations fall where Prometheus expects them, and events mean what the metrics say.

use std::time::{Duration, Instant};

use super::*;
use crate::ipc::{Event, FinishReason, Usage};

fn close(seconds: f64, expected: f64) -> bool {
    (seconds - expected).abs() < 1e-9
}

#[test]
fn a_duration_on_a_bound_counts_at_that_bound() {
    let histogram = Histogram::new(&[0.5, 1.0]);
    histogram.observe(Duration::from_millis(500), 1);
    histogram.observe(Duration::from_millis(501), 2);
    histogram.observe(Duration::from_secs(9), 1);
    let counts: Vec<(f64, u64)> = histogram.cumulative().collect();
    assert_eq!(counts, [(0.5, 1), (1.0, 3), (f64::INFINITY, 4)]);
    assert!(close(histogram.sum(), 10.502));
}

#[test]
fn the_first_token_and_those_after_it_are_timed_apart() {
    let metrics = PackageMetrics::default();
    let start = Instant::now();
    let mut timing = Timing::new(start);
    let mut now = start;
    for tokens in [vec![], vec![1], vec![2, 3]] {
        now += Duration::from_secs(1);
        let delta = Event::Delta { text: String::new(), token_ids: tokens, logprobs: Vec::new() };
        timing.observe(&delta, now, &metrics);
    }
    let reason = FinishReason::Length;
    timing.observe(&Event::Finished { reason, usage: Usage::default() }, now, &metrics);
    let count = |histogram: &Histogram| histogram.cumulative().last().map(|(_, count)| count);
    assert_eq!(count(&metrics.time_to_first_token), Some(1));
    assert!(close(metrics.time_to_first_token.sum(), 2.0));
    assert_eq!(count(&metrics.inter_token_latency), Some(2));
    assert!(close(metrics.inter_token_latency.sum(), 1.0));
    assert!(close(metrics.request_duration.sum(), 3.0));
    let ended: Vec<u64> = Outcome::ALL.map(|outcome| metrics.finished(outcome)).to_vec();
    assert_eq!(ended, [0, 1, 0, 0]);
}

#[test]
fn metric_names_are_unique_and_say_their_kind() {
    let mut names: Vec<&str> = METRICS
        .iter()
        .flat_map(|metric| metric.aliases.iter().chain([&metric.name]))
        .copied()
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    for metric in METRICS {
        assert_eq!(
            metric.kind == Kind::Counter,
            metric.name.ends_with("_total"),
            "{}",
            metric.name
        );
        assert_eq!(
            metric.kind == Kind::Histogram,
            metric.name.ends_with("_seconds"),
            "{}",
            metric.name
        );
    }
}
