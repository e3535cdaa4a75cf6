//! What is remembered of ended predictions is bounded.

use pinion_cog_compat::prediction::OutputShape;
use serde_json::{Map, Value};

use super::*;

fn run(registry: &Registry, id: &str, input: &str) {
    let input = Map::from_iter([("prompt".to_owned(), Value::from(input))]);
    let prediction = Prediction::new(id, input, OutputShape::List, true);
    let made = registry.admit::<(), ()>(id, || Ok((Arc::clone(&prediction), ())));
    assert!(matches!(made, Ok(Admitted::New(()))));
    registry.end(&prediction, |progress| {
        let step = progress.state.cancel(0.0);
        progress.push(step);
    });
}

#[test]
fn the_oldest_are_forgotten_past_a_count() {
    let registry = Registry::default();
    for n in 0..=MAX_ENDED {
        run(&registry, &n.to_string(), "x");
    }
    assert!(registry.snapshot("0").is_none());
    assert!(registry.snapshot("1").is_some());
    assert!(registry.snapshot(&MAX_ENDED.to_string()).is_some());
}

#[test]
fn the_oldest_are_forgotten_past_a_size() {
    let registry = Registry::default();
    let third = "x".repeat(MAX_ENDED_BYTES / 3);
    for id in ["a", "b", "c"] {
        run(&registry, id, &third);
    }
    assert!(registry.snapshot("a").is_none());
    assert!(registry.snapshot("b").is_some());
    run(&registry, "too large", &"x".repeat(MAX_ENDED_BYTES));
    for id in ["b", "c", "too large"] {
        assert!(registry.snapshot(id).is_none(), "{id}");
    }
    assert_eq!(registry.entries.lock().ended_bytes, 0);
    run(&registry, "d", "x");
    assert!(registry.snapshot("d").is_some());
}

#[test]
fn an_id_that_ran_twice_is_remembered_as_it_ran_last() {
    let registry = Registry::default();
    run(&registry, "a", "first");
    run(&registry, "a", "second");
    let json = String::from_utf8(registry.snapshot("a").unwrap().to_vec()).unwrap();
    assert!(json.contains("second"), "{json}");
}

#[test]
fn a_prediction_that_is_refused_leaves_nothing_behind() {
    let registry = Registry::default();
    assert!(registry.admit::<(), &str>("a", || Err("full")).is_err_and(|error| error == "full"));
    assert!(registry.in_flight("a").is_none());
    assert!(registry.snapshot("a").is_none());
}
