//! Which source wins, and what a bad value is told.

use std::time::Duration;

use super::*;

fn none(_: &str) -> Option<String> {
    None
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pinion.toml");
    std::fs::write(&file, "threads = 3\nmax_queue = 5\nheartbeat = '2s'\n").unwrap();
    let env = |name: &str| match name {
        "PINION_MAX_QUEUE" => Some("6".to_owned()),
        "PINION_DEVICE" => Some("cpu".to_owned()),
        _ => None,
    };
    let flags = Flags(vec![("device", "cuda:1".to_owned())]);
    let resolved = resolve(&flags, &env, Some(&file)).unwrap();
    let config = resolved.typed().unwrap();
    assert_eq!(config.worker.device, "cuda:1");
    assert_eq!(config.worker.max_queue, 6);
    assert_eq!(config.worker.threads, Some(3));
    assert_eq!(config.serve.heartbeat, Duration::from_secs(2));
    let origins: Vec<Origin> = ["device", "max-queue", "threads", "listen"]
        .iter()
        .map(|name| resolved.rows().find(|row| row.0 == *name).unwrap().2.clone())
        .collect();
    assert_eq!(origins, [Origin::Flag, Origin::Variable, Origin::File(file), Origin::Default]);
}

#[test]
fn every_bad_value_names_its_setting_and_origin() {
    let flags = Flags(vec![("listen", "nowhere".to_owned())]);
    let errors = resolve(&flags, &none, None).unwrap().typed().unwrap_err();
    let text = errors[0].to_string();
    assert!(
        text.contains("`listen`") && text.contains("flag") && text.contains("nowhere"),
        "{text}"
    );
    let flags = Flags(vec![("threads", "0".to_owned()), ("heartbeat", "soon".to_owned())]);
    let errors = resolve(&flags, &none, None).unwrap().typed().unwrap_err();
    assert!(!errors.is_empty());
}

#[test]
fn keys_and_values_have_one_of_three_types() {
    for (name, is_known) in [("f32", true), ("bf16", true), ("f16", true), ("q8_0", false)] {
        let flags = Flags(vec![("kv-cache-dtype", name.to_owned())]);
        assert_eq!(resolve(&flags, &none, None).unwrap().typed().is_ok(), is_known, "{name}");
    }
}

#[test]
fn classes_are_kept_what_is_said_or_what_the_engine_thinks_right() {
    let shares = |text: Option<&str>| {
        let flags = text.map(|text| ("class-shares", text.to_owned())).into_iter().collect();
        let config = resolve(&Flags(flags), &none, None).unwrap().typed();
        config.map(|config| config.worker.class_shares).map_err(|errors| errors[0].to_string())
    };
    let of_engine = pinion_engine::ClassConfig::with_max_waiting(1);
    let of_engine = RouteClass::ALL.map(|class| of_engine[class].share_percent as u32);
    assert_eq!(shares(None), Ok(of_engine));
    assert_eq!(shares(Some("reasoning=40, latency=60")), Ok([60, 0, 0, 40]));
    for (text, expected) in [
        ("urgent=5", "expected one of latency, compliance, default, reasoning"),
        ("latency", "expected CLASS=PERCENT"),
        ("latency=5,latency=6", "latency is there twice"),
        ("latency=-1", "expected a whole number up to 100"),
        ("latency=60,default=60", "expected 100 percent at most, these are 120"),
    ] {
        let error = shares(Some(text)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pinion.toml");
    std::fs::write(&file, "[class_shares]\nlatency = 10\n").unwrap();
    let config = resolve(&Flags::default(), &none, Some(&file)).unwrap().typed().unwrap();
    assert_eq!(config.worker.class_shares, [10, 0, 0, 0]);
}

#[test]
fn unknown_keys_of_the_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pinion.toml");
    std::fs::write(&file, "listne = '127.0.0.1:1'\n").unwrap();
    let errors = resolve(&Flags::default(), &none, Some(&file)).unwrap_err();
    assert!(matches!(&errors[0], ConfigError::UnknownKey { key, .. } if key == "listne"));
}

#[test]
fn an_open_address_needs_a_key_or_the_word() {
    let listen = ("listen", "0.0.0.0:80".to_owned());
    let open = resolve(&Flags(vec![listen.clone()]), &none, None).unwrap().typed();
    assert!(matches!(open.unwrap_err()[0], ConfigError::Open { .. }));
    for permit in [("api-key", "k1,k2"), ("insecure", "true")] {
        let flags = Flags(vec![listen.clone(), (permit.0, permit.1.to_owned())]);
        assert!(resolve(&flags, &none, None).unwrap().typed().is_ok(), "{permit:?}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let flags = Flags(vec![("api-key", "sk-very-secret".to_owned())]);
    let resolved = resolve(&flags, &none, None).unwrap();
    let shown = resolved.rows().find(|row| row.0 == "api-key").unwrap().1;
    assert_eq!(shown, "(set)");
}
