//! The repository passes every rule, and every rule can fail.

use std::fmt::Write as _;
use std::path::Path;

use super::*;

/// Runs one rule over a small tree and gives back what it found, as text.
fn findings(rule: &str, files: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let tree = Tree::read(folder.path()).unwrap();
    let (_, rule) = RULES.iter().find(|(name, _)| *name == rule).unwrap();
    rule(&tree).iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check_found(rule: &str, files: &[(&str, &str)], expected: &[&str]) {
    assert_eq!(findings(rule, files), expected);
}

/// A file with `num_lines` lines.
fn file_of(num_lines: usize) -> String {
    "//! A file.\n".repeat(num_lines)
}

/// A workspace of empty crates, each with its dependency lines.
fn workspace(crates: &[(&str, &str)]) -> Vec<(String, String)> {
    let table = "axum = \"1\"\ncandle-core = \"1\"\n";
    let mut paths = String::new();
    for (name, _) in crates {
        writeln!(paths, "pinion-{name} = {{ path = {name:?} }}").unwrap();
    }
    let members = crates.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(",");
    let root = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{members}]\n[workspace.dependencies]\n{table}{paths}"
    );
    let mut files = vec![("Cargo.toml".to_owned(), root)];
    for (name, dependencies) in crates {
        let head = format!(
            "[package]\nname = \"pinion-{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n"
        );
        files.push((format!("{name}/Cargo.toml"), format!("{head}{dependencies}")));
        files.push((format!("{name}/src/lib.rs"), "//! Nothing.\n".to_owned()));
    }
    files
}

#[track_caller]
fn check_arrows(crates: &[(&str, &str)], expected: &[&str]) {
    let files = workspace(crates);
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    check_found("arrows", &files, expected);
}

#[test]
fn the_repository_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let tree = Tree::read(root).unwrap();
    let found = check(&tree);
    let list = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(found.is_empty(), "{list}");
    for path in ["server/src/main.rs", "README.md", ".ci/run", "Cargo.lock", "Dockerfile"] {
        assert!(tree.file(path).is_some(), "the tree lacks: {path}");
    }
}

#[test]
fn an_arrow_that_points_up_is_found() {
    let up = "[dependencies]\npinion-engine.workspace = true\n";
    check_arrows(
        &[("engine", ""), ("loader", up)],
        &[
            "loader/Cargo.toml:1: an arrow that points up or sideways: pinion-loader to pinion-engine",
        ],
    );
    check_arrows(
        &[("engine", "[dependencies]\npinion-kernels.workspace = true\n"), ("kernels", "")],
        &[],
    );
}

#[test]
fn an_outside_crate_in_the_wrong_place_is_found_unless_only_tests_use_it() {
    let axum = "dependencies]\naxum.workspace = true\n";
    check_arrows(
        &[("engine", &format!("[{axum}"))],
        &["engine/Cargo.toml:1: pinion-engine must not know axum"],
    );
    check_arrows(
        &[("engine", &format!("[build-{axum}"))],
        &["engine/Cargo.toml:1: pinion-engine must not know axum"],
    );
    check_arrows(&[("engine", &format!("[dev-{axum}"))], &[]);
    let candle = "[dependencies]\ncandle-core.workspace = true\n";
    check_arrows(
        &[("cog-compat", candle)],
        &["cog-compat/Cargo.toml:1: pinion-cog-compat must not know candle-core"],
    );
}

#[test]
fn a_crate_without_a_row_in_the_table_is_found() {
    check_arrows(
        &[("common", "")],
        &["common/Cargo.toml:1: a crate without a row in the table of arrows: pinion-common"],
    );
}

#[test]
fn a_dependency_beside_the_table_and_missing_lints_are_found() {
    let text = "[package]\nname = \"x\"\n[dependencies]\nserde.workspace = true\nbytes = \"1\"\n";
    check_found(
        "manifests",
        &[("x/Cargo.toml", text)],
        &[
            "x/Cargo.toml:5: not from the workspace table: bytes = \"1\"",
            "x/Cargo.toml:1: lacks [lints] workspace = true",
        ],
    );
    check_found(
        "manifests",
        &[(
            "x/Cargo.toml",
            "[lints]\nworkspace = true\n[dependencies]\nserde = { workspace = true }\n",
        )],
        &[],
    );
}

#[test]
fn a_locked_crate_that_needs_a_system_library_is_found() {
    let lock = "[[package]]\nname = \"openssl-sys\"\nversion = \"0.9.0\"\n";
    check_found(
        "manifests",
        &[("Cargo.lock", lock)],
        &["Cargo.lock:2: needs more than a C compiler: openssl-sys"],
    );
}

#[test]
fn a_file_of_501_lines_is_found_and_one_of_500_is_not() {
    let (large, fits) = (file_of(501), file_of(500));
    let finding = "a.rs:501: 501 non-test lines, at most 500: split it by subject";
    check_found("sizes", &[("a.rs", &large), ("b.rs", &fits)], &[finding]);
    check_found("sizes", &[("a/tests.rs", &large), ("tests/it/a.rs", &large)], &[]);
}

#[test]
fn lines_of_an_inline_test_module_do_not_count_and_those_after_it_do() {
    let tests = format!(
        "#[cfg(test)]\nmod tests {{\n    fn a() {{\n{}    }}\n}}\n",
        "        b();\n".repeat(400)
    );
    check_found("sizes", &[("a.rs", &format!("{}{tests}", file_of(200)))], &[]);
    let after = format!("{}{tests}{}", file_of(200), file_of(301));
    check_found(
        "sizes",
        &[("a.rs", &after)],
        &["a.rs:501: 501 non-test lines, at most 500: split it by subject"],
    );
}

#[test]
fn a_file_that_does_not_say_what_it_is_is_found() {
    let finding = "a.rs:1: the first line is not `//! ` and what the file is";
    check_found("headers", &[("a.rs", "fn main() {}\n"), ("b.rs", "//! Says it.\n")], &[finding]);
    check_found("headers", &[("a.rs", "//! \n")], &[finding]);
}

#[test]
fn unsafe_outside_of_its_two_places_is_found() {
    let text = "//! A file.\nfn f() { unsafe { g() } }\n";
    let finding =
        "engine/src/a.rs:2: `unsafe`: unsafe stands in kernels and in the loader's mapping only";
    check_found(
        "confined",
        &[("engine/src/a.rs", text), ("kernels/src/a.rs", text), ("loader/src/files/map.rs", text)],
        &[finding],
    );
    let harmless =
        "//! Says unsafe.\n// unsafe\n#![forbid(unsafe_code)]\nconst A: &str = \"unsafe\";\n";
    check_found("confined", &[("engine/src/a.rs", harmless)], &[]);
}

#[test]
fn a_crate_root_that_does_not_forbid_unsafe_is_found() {
    let finding = "models/src/lib.rs:1: the crate root lacks #![forbid(unsafe_code)]";
    check_found("confined", &[("models/src/lib.rs", "//! #![forbid(unsafe_code)]\n")], &[finding]);
    check_found(
        "confined",
        &[("models/src/lib.rs", "//! Models.\n#![forbid(unsafe_code)]\n")],
        &[],
    );
}

#[test]
fn a_cuda_switch_outside_of_kernels_is_found() {
    let text = "//! A file.\n#[cfg(feature = \"cuda\")]\nfn f() {}\n";
    let finding = "loader/src/a.rs:2: only kernels has code that depends on the feature cuda";
    check_found("confined", &[("loader/src/a.rs", text), ("kernels/src/a.rs", text)], &[finding]);
}

#[test]
fn a_look_at_the_environment_outside_of_the_configuration_is_found() {
    let text = "//! A file.\nfn f() { std::env::var(\"HOME\"); }\n";
    let finding = "server/src/a.rs:2: `env::var`: only server/src/config reads the environment";
    check_found(
        "confined",
        &[("server/src/a.rs", text), ("server/src/config/env.rs", text)],
        &[finding],
    );
}

#[test]
fn a_clock_a_file_or_a_runtime_in_the_engine_is_found_and_its_tests_may_have_them() {
    let text = "//! A file.\nuse std::time::Instant;\nuse std::fs::File;\nuse tokio::runtime::Runtime;\nuse tokio::sync::mpsc;\n";
    check_found(
        "confined",
        &[("engine/src/a.rs", text), ("server/src/a.rs", text)],
        &[
            "engine/src/a.rs:2: `Instant`: the engine reads no clock: time comes in as a value",
            "engine/src/a.rs:3: `std::fs`: the engine opens no file or socket",
            "engine/src/a.rs:4: of tokio, the engine uses only tokio::sync",
        ],
    );
    check_found(
        "confined",
        &[("engine/src/tests.rs", "//! Tests.\nuse std::time::Instant;\n")],
        &[],
    );
}

#[test]
fn unfinished_code_and_tests_that_do_not_run_are_found() {
    let note = concat!("//! A file.\n// TO", "DO: later\n");
    check_found("unfinished", &[("a.rs", note)], &[concat!("a.rs:2: unfinished: TO", "DO")]);
    let code = concat!(
        "//! A file.\nfn f() { todo",
        "!() }\n#[",
        "ignore = \"slow\"]\n#[",
        "should_panic]\nfn g() {}\n"
    );
    check_found(
        "unfinished",
        &[("a.rs", code)],
        &[
            concat!("a.rs:2: unfinished: todo", "!"),
            concat!("a.rs:3: unfinished: #[", "ignore"),
            concat!("a.rs:4: unfinished: #[", "should_panic"),
        ],
    );
    check_found("unfinished", &[("a.rs", "//! A file.\nconst TODOS: &str = \"todo!\";\n")], &[]);
}

#[test]
fn an_architecture_page_of_151_lines_is_found() {
    let finding = "ARCHITECTURE.md:151: 151 lines, at most 150: it is a map, not the country";
    check_found("documents", &[("ARCHITECTURE.md", &"a line\n".repeat(151))], &[finding]);
    check_found("documents", &[("ARCHITECTURE.md", &"a line\n".repeat(150))], &[]);
}

#[test]
fn a_document_that_names_a_missing_file_is_found() {
    let text = "See `engine/src/gone.rs`, `engine/src/a.rs`, `engine/src/*.rs` and [that](gone.md), [this](NOTES.md#a).\n";
    check_found(
        "documents",
        &[("NOTES.md", text), ("engine/src/a.rs", "//! A file.\n")],
        &[
            "NOTES.md:1: names a file that is not there: engine/src/gone.rs",
            "NOTES.md:1: a link to nothing: gone.md",
        ],
    );
}

#[test]
fn a_path_of_one_machine_in_a_document_is_found() {
    let text = concat!(
        "Run /ho",
        "me/someone/a.sh, not https://example.org/ho",
        "me/a or ./wo",
        "rk/b.\n"
    );
    check_found(
        "documents",
        &[("NOTES.md", text)],
        &[concat!("NOTES.md:1: a path of one machine: /ho", "me/")],
    );
    let code = concat!("#!/bin/sh\ncd /wo", "rk/main\n");
    check_found(
        "documents",
        &[("a.sh", code)],
        &[concat!("a.sh:2: a path of one machine: /wo", "rk/")],
    );
}

#[test]
fn a_readme_whose_first_commands_are_others_is_found() {
    let good =
        "# A\n\n```bash\ncargo run --release -- demo   # look\ncargo test --workspace\n```\n";
    check_found("documents", &[("README.md", good)], &[]);
    let finding = "README.md:1: the first code block is not: cargo run --release -- demo; cargo test --workspace";
    check_found("documents", &[("README.md", "# A\n\n```bash\nmake\n```\n")], &[finding]);
    let ci = "cargo test --workspace\n";
    let finding = ".ci/run:1: does not run README's command: cargo run --release -- demo";
    check_found("documents", &[(".ci/run", ci)], &[finding]);
}

#[test]
fn an_architecture_without_a_row_or_a_word_in_the_readme_is_found() {
    let table = "//! Table.\nconst ARCHITECTURES: &[(&str, Builder)] = &[(\"LlamaForCausalLM\", llama::build)];\n";
    let arch = "//! An architecture.\n";
    check_found(
        "architectures",
        &[
            ("models/src/registry.rs", table),
            ("models/src/arch/llama/mod.rs", arch),
            ("models/src/arch/llama/config.rs", arch),
            ("models/src/arch/gone/mod.rs", arch),
            ("models/src/arch/lost.rs", arch),
        ],
        &[
            "models/src/arch/gone/mod.rs:1: no row in models/src/registry.rs builds it",
            "models/src/arch/lost.rs:1: no row in models/src/registry.rs builds it",
            "models/src/registry.rs:2: README.md does not name LlamaForCausalLM",
        ],
    );
}

#[test]
fn comments_and_literals_are_no_code() {
    let text =
        "a /* b /* c */ d */ e // f\n\"g \\\" h\" 'i' '\\'' 'j r#\"k \" l\"# br\"m\" r#type n\n";
    let code = source::code_only(text);
    assert_eq!(code.lines().count(), text.lines().count());
    let words: Vec<_> = code.split_whitespace().collect();
    assert_eq!(
        words,
        [
            "a", "e", "\"", "\"", "'", "'", "'", "'", "'j", "r#\"", "\"#", "br\"", "\"", "r#type",
            "n"
        ]
    );
}
