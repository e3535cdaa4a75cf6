//! The starter package `pinion-tiny`, which is part of the binary: it loads without a disk.

use crate::files::{EmbeddedFile, PackageFiles};

/// Its name.
pub const NAME: &str = "pinion-tiny";

macro_rules! embed {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../starter/pinion-tiny/", $path)))),*]
    };
}

const FILES: &[EmbeddedFile] = embed![
    "cog.yaml",
    "weights/config.json",
    "weights/generation_config.json",
    "weights/model.safetensors",
    "weights/tokenizer.json",
    "weights/tokenizer_config.json",
];

/// Its files.
pub const fn files() -> PackageFiles {
    PackageFiles::embedded(NAME, FILES)
}

/// Its `cog.yaml`.
pub const fn manifest_text() -> &'static str {
    include_str!("../../starter/pinion-tiny/cog.yaml")
}
