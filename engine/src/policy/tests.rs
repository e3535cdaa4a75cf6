//! Tests of `policy`.

use super::QueueKey;
use crate::RouteClass::{self, Compliance, Default, Latency, Reasoning};

#[test]
fn one_class_is_first_come_first_served() {
    for class in [Latency, Reasoning, Compliance, Default] {
        assert!(QueueKey::new(class, 3) < QueueKey::new(class, 4));
    }
}

#[test]
fn the_urgent_overtake_a_bounded_number() {
    let num_overtakers = |class: RouteClass| {
        let key = QueueKey::new(class, 1000);
        (1001..2000).filter(|&later| QueueKey::new(Latency, later) < key).count()
    };
    let classes = [Latency, Compliance, Default, Reasoning];
    assert_eq!(classes.map(num_overtakers), [0, 7, 15, 63]);
}
