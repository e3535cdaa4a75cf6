//! Tests of `pace`.

use std::time::Duration;

use super::Pace;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn what_was_not_measured_is_not_known() {
    assert_eq!(Pace::default().time(1, 100), None);
}

#[test]
fn a_step_has_a_price_and_each_token_has_one() {
    let mut pace = Pace::default();
    for num_tokens in [1, 1, 1, 100, 1, 2, 50] {
        pace.observe(num_tokens, millis(20 + 2 * num_tokens as u64));
    }
    let time = pace.time(3, 300).unwrap();
    assert!((time.as_secs_f64() - 0.660).abs() < 1e-6, "{time:?}");
}

#[test]
fn steps_of_one_size_say_nothing_about_tokens() {
    let mut pace = Pace::default();
    (0..50).for_each(|_| pace.observe(1, millis(30)));
    let time = pace.time(2, 1000).unwrap();
    assert!((time.as_secs_f64() - 0.060).abs() < 1e-6, "{time:?}");
}

#[test]
fn recent_steps_count_more() {
    let mut pace = Pace::default();
    let mut run = |millis_per_token: u64| {
        for at in 0..300 {
            pace.observe(1 + at % 7, millis(millis_per_token * (1 + at as u64 % 7)));
        }
        pace.time(1, 10).unwrap().as_secs_f64()
    };
    assert!((run(10) - 0.100).abs() < 1e-3);
    assert!((run(1) - 0.010).abs() < 1e-3);
}

#[test]
fn noise_gives_no_negative_prices() {
    let mut pace = Pace::default();
    pace.observe(100, millis(1));
    pace.observe(1, millis(100));
    assert!(pace.time(1, 0) <= pace.time(1, 1000));
    assert!(pace.time(0, 1000).is_some());
}
