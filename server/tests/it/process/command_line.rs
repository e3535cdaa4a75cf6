//! The commands as a user types them.

use std::net::TcpListener;

use super::support::{Package, pinion};

/// Exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = pinion(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_command_has_help_with_an_example() {
    let commands = ["demo", "serve", "run", "chat", "check", "init", "bench", "completions"];
    for command in commands {
        let (code, text, _) = run(&[command, "--help"]);
        assert_eq!(code, 0);
        assert!(text.contains(&format!("Example: `pinion {command}")), "{command}: {text}");
    }
    let (code, text, _) = run(&["--help"]);
    assert_eq!(code, 0);
    commands.iter().for_each(|command| assert!(text.contains(command), "{text}"));
}

#[test]
fn wrong_usage_is_2_and_what_is_not_there_is_3() {
    assert_eq!(run(&["serve", "--no-such-flag"]).0, 2);
    assert_eq!(run(&["serve", "--threads", "many"]).0, 2);
    assert_eq!(run(&["bench", "not a url"]).0, 2);
    let (code, _, text) = run(&["serve", "/no/such/package"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("/no/such/package") && text.contains("hint: "), "{text}");
}

#[test]
fn a_port_in_use_is_named_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, text) = run(&["serve", "--listen", &address]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&address) && text.contains("hint: "), "{text}");
}

#[test]
fn an_open_address_needs_a_key() {
    let (code, _, text) = run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--api-key") && text.contains("--insecure"), "{text}");
}

#[test]
fn the_configuration_is_shown_with_its_origins_and_without_secrets() {
    let (code, text, _) = run(&["serve", "--print-config", "--threads", "3", "--api-key", "sk-1"]);
    assert_eq!(code, 0);
    let row = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("threads"), "3 flag");
    assert_eq!(row("listen"), "127.0.0.1:8080 default");
    assert_eq!(row("api-key"), "(set) flag");
    let json = run(&["serve", "--print-config", "--json"]).1;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["max-queue"]["value"], "256");
}

#[test]
fn a_prediction_runs_from_the_command_line() {
    let (code, text, log) = run(&["run", "-i", "prompt=Count from 1 to 5.", "-i", "temperature=0"]);
    assert_eq!((code, text.trim()), (0, "1 2 3 4 5"), "{log}");
    assert!(log.contains("native backend, because"), "{log}");
    let (code, text, _) =
        run(&["run", "--json", "-i", "prompt=Count from 1 to 5.", "-i", "temperature=0"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["output"]), (0, &"1 2 3 4 5".into()));
    assert!(json["metrics"]["output_token_count"].as_u64().unwrap() > 4, "{json}");
}

#[test]
fn inputs_of_a_prediction_are_checked_by_name() {
    let (code, _, text) = run(&["run", "-i", "prompt=Hello", "-i", "temperature=hot"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("temperature"), "{text}");
    let (code, _, text) = run(&["run", "-i", "prompt=Hello", "-i", "promt=x"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("promt") && text.contains("prompt_template"), "{text}");
}

#[test]
fn a_new_package_parses_and_an_old_one_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let package = directory.path().join("new");
    let package = package.to_str().unwrap();
    assert_eq!(run(&["init", package]).0, 0);
    let (code, _, text) = run(&["check", package]);
    assert_eq!(code, 1, "weights are missing: {text}");
    assert!(!text.contains("cog.yaml has"), "{text}");
    assert_eq!(run(&["init", package]).0, 1);
}

#[test]
fn a_checked_package_says_what_it_is() {
    let package = Package::starter();
    let (code, text, _) = run(&["check", &package.name(), "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["architecture"]), (0, &"LlamaForCausalLM".into()));
}

#[test]
fn shells_can_complete() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, text, _) = run(&["completions", shell]);
        assert!(code == 0 && text.contains("pinion"), "{shell}");
    }
}
