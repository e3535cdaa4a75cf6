//! Which crate may know which: arrows between workspace crates, and outside crates kept out.

use serde_json::Value;

use super::{Finding, Tree};

/// What one workspace crate may depend on.
struct Crate {
    name: &'static str,
    /// Workspace crates below it.
    below: &'static [&'static str],
    /// Outside crates that may not be a normal or build dependency; a final `*` stands for any ending.
    never: &'static [&'static str],
}

const CRATES: &[Crate] = &[
    Crate {
        name: "pinion-server",
        below: &[
            "pinion-loader",
            "pinion-engine",
            "pinion-models",
            "pinion-kernels",
            "pinion-cog-compat",
        ],
        never: &[
            "candle-nn",
            "candle-transformers",
            "safetensors",
            "tokenizers",
            "minijinja*",
            "memmap2",
        ],
    },
    Crate {
        name: "pinion-loader",
        below: &["pinion-models", "pinion-kernels", "pinion-cog-compat"],
        never: &["axum*", "hyper*", "tower*", "clap*", "candle-transformers"],
    },
    Crate {
        name: "pinion-engine",
        below: &["pinion-models", "pinion-kernels"],
        never: &[
            "axum*",
            "hyper*",
            "tower*",
            "reqwest",
            "hf-hub",
            "bollard",
            "clap*",
            "serde*",
            "safetensors",
            "memmap2",
            "minijinja*",
            "rustix",
            "candle-transformers",
        ],
    },
    Crate {
        name: "pinion-models",
        below: &["pinion-kernels"],
        never: &[
            "axum*",
            "hyper*",
            "tower*",
            "reqwest",
            "hf-hub",
            "tokio*",
            "tokenizers",
            "safetensors",
            "memmap2",
            "minijinja*",
            "candle-transformers",
        ],
    },
    Crate {
        name: "pinion-kernels",
        below: &[],
        never: &[
            "axum*",
            "hyper*",
            "tower*",
            "reqwest",
            "hf-hub",
            "tokio*",
            "tokenizers",
            "safetensors",
            "serde*",
            "minijinja*",
            "candle-transformers",
        ],
    },
    Crate {
        name: "pinion-cog-compat",
        below: &[],
        never: &["candle*", "tokenizers", "safetensors", "axum*", "hyper"],
    },
    Crate {
        name: "pinion-benches",
        below: &[
            "pinion-server",
            "pinion-loader",
            "pinion-engine",
            "pinion-models",
            "pinion-kernels",
            "pinion-cog-compat",
        ],
        never: &[],
    },
    Crate { name: "pinion-xtask", below: &[], never: &["candle*", "tokio*", "axum*", "reqwest"] },
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.packages.iter().flat_map(check_package).collect()
}

fn check_package(package: &Value) -> Vec<Finding> {
    let name = package["name"].as_str().unwrap_or_default();
    let path = format!("{}/Cargo.toml", name.strip_prefix("pinion-").unwrap_or(name));
    let Some(rule) = CRATES.iter().find(|rule| rule.name == name) else {
        return vec![Finding::new(
            path,
            1,
            format!("a crate without a row in the table of arrows: {name}"),
        )];
    };
    let dependencies = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    let complaints = dependencies.iter().filter_map(|dependency| complaint(rule, dependency));
    complaints.map(|message| Finding::new(&path, 1, message)).collect()
}

fn complaint(rule: &Crate, dependency: &Value) -> Option<String> {
    let name = dependency["name"].as_str()?;
    let is_dev = dependency["kind"].as_str() == Some("dev");
    if name.starts_with("pinion-") {
        let is_testing_itself = is_dev && name == rule.name;
        let allowed = rule.below.contains(&name) || is_testing_itself;
        return (!allowed)
            .then(|| format!("an arrow that points up or sideways: {} to {name}", rule.name));
    }
    let kept_out = rule.never.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == *pattern,
    });
    (kept_out && !is_dev).then(|| format!("{} must not know {name}", rule.name))
}
