//! Words that belong to one place: `unsafe`, CUDA, the environment, the clock, files, the runtime.

use super::source::has_word;
use super::{File, Finding, Tree};

/// Crates whose roots forbid `unsafe` outright.
const FORBID_UNSAFE: &[&str] = &["server", "engine", "models", "cog-compat", "benches", "xtask"];

/// A word, where it may stand, and why nowhere else.
struct Confined {
    word: &'static str,
    /// Path prefixes that the rule looks at; empty: every Rust file.
    within: &'static [&'static str],
    /// Path prefixes where the word may stand.
    except: &'static [&'static str],
    tests_too: bool,
    why: &'static str,
}

const ENGINE: &[&str] = &["engine/src/"];
const MODELS: &[&str] = &["models/src/"];
/// Cargo speaks to build scripts through variables.
const CONFIG: &[&str] = &["server/src/config/", "kernels/build.rs"];
const NO_CLOCK: &str = "the engine reads no clock: time comes in as a value";
const NO_FILES: &str = "the engine opens no file or socket";
/// Tests make the environments that they test in.
const ONE_ENV: &str = "only server/src/config reads the environment";
const ONE_DEVICE: &str = "models do not know which device runs them: kernels decide";

const CONFINED: &[Confined] = &[
    Confined {
        word: "unsafe",
        within: &[],
        except: &["kernels/", "loader/src/files/map.rs"],
        tests_too: true,
        why: "unsafe stands in kernels and in the loader's mapping only",
    },
    everywhere("env::var", CONFIG, ONE_ENV),
    everywhere("env::var_os", CONFIG, ONE_ENV),
    everywhere("env::vars", CONFIG, ONE_ENV),
    everywhere("env::vars_os", CONFIG, ONE_ENV),
    product("Instant", ENGINE, NO_CLOCK),
    product("SystemTime", ENGINE, NO_CLOCK),
    product("std::fs", ENGINE, NO_FILES),
    product("std::net", ENGINE, NO_FILES),
    product("is_cuda", MODELS, ONE_DEVICE),
    product("is_cpu", MODELS, ONE_DEVICE),
];

const fn everywhere(
    word: &'static str,
    except: &'static [&'static str],
    why: &'static str,
) -> Confined {
    Confined { word, within: &[], except, tests_too: false, why }
}

const fn product(
    word: &'static str,
    within: &'static [&'static str],
    why: &'static str,
) -> Confined {
    Confined { word, within, except: &[], tests_too: false, why }
}

impl Confined {
    fn applies(&self, file: &File) -> bool {
        let begins =
            |prefixes: &[&str]| prefixes.iter().any(|prefix| file.path.starts_with(prefix));
        (self.within.is_empty() || begins(self.within))
            && !begins(self.except)
            && (self.tests_too || !(file.is_test() || file.path.ends_with("/testing.rs")))
    }
}

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.with_extension("rs") {
        let rules: Vec<_> = CONFINED.iter().filter(|rule| rule.applies(file)).collect();
        for (line, code) in file.code_lines() {
            for rule in rules.iter().filter(|rule| has_word(code, rule.word)) {
                findings.push(Finding::new(
                    &file.path,
                    line,
                    format!("`{}`: {}", rule.word, rule.why),
                ));
            }
            if is_cuda_switch(file, line) && !file.path.starts_with("kernels/") {
                findings.push(Finding::new(
                    &file.path,
                    line,
                    "only kernels has code that depends on the feature cuda",
                ));
            }
            if file.path.starts_with("engine/src/") && uses_more_than_channels(code) {
                findings.push(Finding::new(
                    &file.path,
                    line,
                    "of tokio, the engine uses only tokio::sync",
                ));
            }
        }
    }
    findings.extend(missing_forbids(tree));
    findings
}

/// The name of the feature is a literal, so the code alone does not show it.
fn is_cuda_switch(file: &File, line: usize) -> bool {
    let code = file.code.lines().nth(line - 1).unwrap_or_default();
    let text = file.text.lines().nth(line - 1).unwrap_or_default();
    code.contains("feature = \"") && text.contains("feature = \"cuda\"")
}

fn uses_more_than_channels(code: &str) -> bool {
    code.match_indices("tokio::").any(|(at, path)| !code[at + path.len()..].starts_with("sync"))
}

fn missing_forbids(tree: &Tree) -> Vec<Finding> {
    let roots = FORBID_UNSAFE
        .iter()
        .flat_map(|folder| ["lib.rs", "main.rs"].map(|name| format!("{folder}/src/{name}")));
    let files = roots.filter_map(|path| tree.file(&path));
    let bare = files.filter(|file| !file.code.contains("#![forbid(unsafe_code)]"));
    bare.map(|file| Finding::new(&file.path, 1, "the crate root lacks #![forbid(unsafe_code)]"))
        .collect()
}
