//! `cog.yaml` files against the verdict and the configuration that Cog's own parser gave.
use pinion_cog_compat::manifest::strict;
use pinion_cog_compat::{Diagnostic, Manifest};
use serde_json::Value;

/// Files that Cog refuses and pinion can serve: what is wrong matters only when an image is built, or its meaning is
/// plain.
const SERVED_ALTHOUGH_REFUSED: [&str; 11] = [
    "both_empty_predict.yaml",
    "conc310.yaml",
    "concempty.yaml",
    "concint.yaml",
    "cudnn_bad.yaml",
    "envdeny.yaml",
    "envmap.yaml",
    "py4.yaml",
    "reqs_missing.yaml",
    "runint.yaml",
    "torch_unpinned.yaml",
];

/// Files whose fault Cog words with the types of its own program, or with a list from its table of images.
const WORDED_DIFFERENTLY: [&str; 4] =
    ["concint.yaml", "cudnn_bad.yaml", "envmap.yaml", "runint.yaml"];

fn golden() -> Value {
    let files = super::fixtures("cog-yaml-edge", "json");
    serde_json::from_slice(&files[0].1).unwrap()
}

fn cases() -> Vec<(String, String, Value)> {
    let golden = golden();
    let files = super::fixtures("cog-yaml-edge", "yaml");
    assert_eq!(files.len(), golden.as_object().unwrap().len());
    files
        .into_iter()
        .map(|(name, bytes)| {
            (name.clone(), String::from_utf8(bytes).unwrap(), golden[&name].clone())
        })
        .collect()
}

#[test]
fn the_strict_verdict_is_the_verdict_of_cog() {
    for (name, text, cog) in cases() {
        let found = strict::check(&text, &|_| None);
        let accepted = !found.iter().any(Diagnostic::is_error);
        assert_eq!(Value::Bool(accepted), cog["ok"], "{name}: {found:#?}");
    }
}

#[test]
fn strict_faults_have_the_words_of_cog() {
    for (name, text, cog) in cases() {
        let Some(error) =
            cog["error"].as_str().filter(|_| !WORDED_DIFFERENTLY.contains(&name.as_str()))
        else {
            continue;
        };
        let found = strict::check(&text, &|_| None);
        let mut ours: Vec<&str> =
            found.iter().filter(|d| d.is_error()).map(|d| d.message.as_str()).collect();
        let mut theirs: Vec<&str> = error.lines().collect();
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn strict_warnings_are_those_of_cog() {
    for (name, text, cog) in cases() {
        let found = strict::check(&text, &|_| None);
        let warnings: Vec<Value> =
            found.iter().filter(|d| !d.is_error()).map(|d| d.message.clone().into()).collect();
        if let Some(theirs) = cog["warnings"].as_array() {
            assert_eq!(&warnings, theirs, "{name}");
        }
    }
}

#[test]
fn the_configuration_is_that_of_cog() {
    for (name, text, cog) in cases().into_iter().filter(|(_, _, cog)| cog["ok"] == true) {
        let manifest =
            Manifest::parse(&text).unwrap_or_else(|faults| panic!("{name}: {faults:#?}"));
        assert_eq!(manifest.cog_config(), cog["config"], "{name}");
    }
}

#[test]
fn files_that_cog_refuses_for_its_image_can_still_be_served() {
    for (name, text, cog) in cases().into_iter().filter(|(_, _, cog)| cog["ok"] == false) {
        let served = Manifest::parse(&text).is_ok();
        let expected = SERVED_ALTHOUGH_REFUSED.contains(&name.as_str());
        assert_eq!(served, expected, "{name}: {cog}");
    }
}
