//! `cog.yaml` as a typed [`Manifest`], or everything that is wrong with it at once.
//!
//! Two verdicts exist. [`Manifest::parse`] is lenient: it says whether pinion can serve the package, and does not mind
//! what only matters for building Python images. [`strict::check`] says whether `cog build` would accept the file.
mod backend;
mod build;
mod config;
mod pinion;
mod read;
mod service;
pub mod strict;
mod weights;

use std::collections::BTreeMap;

pub use backend::BackendHint;
pub use build::{Build, BuildRun, Mount};
pub use pinion::{Adapter, Amount, Backend, DType, InputAliases, InputName, PinionBlock, Price};
pub use service::{Concurrency, Observability, Traces};
pub use weights::{Scheme, WeightSource, WeightSpec};

use crate::diagnostic::{self, Diagnostic, Mark};
use crate::yaml::{self, Node, Value};
use read::{Field, Fields, Findings};

/// The largest `cog.yaml` that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// A `cog.yaml`: all of Cog's fields and pinion's own block.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The runner, `file.py:Name`; the newer spelling of `predict`.
    pub run: Option<String>,
    /// The runner in its older spelling.
    pub predict: Option<String>,
    /// The training function, `train.py:train`.
    pub train: Option<String>,
    /// The image reference to build or push.
    pub image: Option<String>,
    /// The repository of a model with managed weights, without tag or digest.
    pub model: Option<String>,
    /// How the image is built.
    pub build: Build,
    /// How many predictions run at once.
    pub concurrency: Option<Concurrency>,
    /// Environment variables of the container, in the order given.
    pub environment: Vec<(String, String)>,
    /// Managed weights.
    pub weights: Vec<WeightSpec>,
    /// Tracing of the container.
    pub observability: Option<Observability>,
    /// Pinion's own block.
    pub pinion: PinionBlock,
    /// Keys at the top level that neither Cog nor pinion knows.
    pub unknown: BTreeMap<String, serde_json::Value>,
    /// Warnings and notes, by line.
    pub notes: Vec<Diagnostic>,
}

impl Manifest {
    /// Reads a `cog.yaml`. Errors come all at once, by line, with the warnings and notes between them.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut out = Findings::default();
        let manifest = root(text, &mut out.all).and_then(|root| read(&root, &mut out));
        diagnostic::arrange(&mut out.all);
        match manifest {
            Some(manifest) if !out.all.iter().any(Diagnostic::is_error) => {
                Ok(Self { notes: out.all, ..manifest })
            }
            _ => Err(out.all),
        }
    }

    /// Reads a `cog.yaml` from bytes, which must be UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text),
            Err(error) => Err(vec![not_utf8(&bytes[..error.valid_up_to()])]),
        }
    }

    /// The runner, in whichever spelling it is given.
    pub fn runner(&self) -> Option<&str> {
        let given = |field: &Option<String>| field.as_deref().is_some_and(|name| !name.is_empty());
        [&self.run, &self.predict].into_iter().find(|field| given(field))?.as_deref()
    }
}

/// The root of the tree, or nothing when the file is no YAML at all; what is wrong goes to `out`.
fn root(text: &str, out: &mut Vec<Diagnostic>) -> Option<Node> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("file too large: {} bytes, at most {MAX_FILE_BYTES}", text.len());
        out.push(Diagnostic::error(Mark::START, "", message));
        return None;
    }
    match yaml::parse(text, out) {
        Ok(root) => Some(root),
        Err(fault) => {
            out.push(fault);
            None
        }
    }
}

fn not_utf8(valid: &[u8]) -> Diagnostic {
    let valid = String::from_utf8_lossy(valid);
    let line = 1 + valid.matches('\n').count();
    let column = 1 + valid.rsplit('\n').next().unwrap_or_default().chars().count();
    Diagnostic::error(Mark { line, column }, "", "not UTF-8").hint("save the file as UTF-8")
}

fn read(root: &Node, out: &mut Findings) -> Option<Manifest> {
    let whole = Field { node: root, path: String::new() };
    if matches!(root.value, Value::Scalar(_) | Value::Seq(_)) {
        let message = format!("cog.yaml must be a mapping of fields, not {}", root.kind());
        out.push(
            Diagnostic::error(root.mark, "", message)
                .hint("start with a line such as `run: run.py:Runner`"),
        );
        return None;
    }
    let mut fields = Fields::of(&whole, out)?;
    let mut text = |name, out: &mut Findings| fields.take(name).and_then(|field| field.text(out));
    let (run, predict) = (text("run", out), text("predict", out));
    let (train, image, model) = (text("train", out), text("image", out), text("model", out));
    both_runners(&mut fields, run.as_deref(), predict.as_deref(), out);
    let build = fields.take("build").map(|field| build::read(&field, out)).unwrap_or_default();
    let concurrency =
        fields.take("concurrency").and_then(|field| service::concurrency(&field, out));
    let environment = fields
        .take("environment")
        .map(|field| service::environment(&field, out))
        .unwrap_or_default();
    let weights =
        fields.take("weights").map(|field| weights::read(&field, out)).unwrap_or_default();
    let observability =
        fields.take("observability").and_then(|field| service::observability(&field, out));
    let pinion = fields.take("pinion").map(|field| pinion::read(&field, out)).unwrap_or_default();
    let unknown =
        fields.unknown().map(|entry| (entry.key.to_string(), entry.value.to_json())).collect();
    note_unknown(&fields, out);
    let notes = Vec::new();
    Some(Manifest {
        run,
        predict,
        train,
        image,
        model,
        build,
        concurrency,
        environment,
        weights,
        observability,
        pinion,
        unknown,
        notes,
    })
}

fn both_runners(fields: &mut Fields, run: Option<&str>, predict: Option<&str>, out: &mut Findings) {
    let (Some(run), Some(predict), Some(field)) = (run, predict, fields.take("predict")) else {
        return;
    };
    if !run.is_empty() && !predict.is_empty() && run != predict {
        let message = format!("run already names another runner: {run}");
        out.push(
            Diagnostic::error(field.node.mark, &field.path, message)
                .hint("keep `run`, the newer name"),
        );
    }
}

/// Unknown keys by path, of which more can be said: they belong elsewhere, or Cog once had them.
const STRAYS: [(&str, &str); 11] = [
    ("gpu", "`gpu` belongs under `build:`"),
    ("python_version", "`python_version` belongs under `build:`"),
    ("env", "the field is called `environment`"),
    ("dtype", "`dtype` belongs under `pinion:`"),
    ("backend", "`backend` belongs under `pinion:`"),
    ("max_model_len", "`max_model_len` belongs under `pinion:`"),
    ("build.fast", "Cog no longer has this field"),
    ("build.cog_runtime", "Cog no longer has this field"),
    ("build.python_overrides", "Cog no longer has this field"),
    ("build.secrets", "Cog has no such field: use `mounts` of a command under `run`"),
    ("build.build_disk_space", "Cog no longer has this field"),
];

/// Notes every key that nothing reads: a warning when it looks like a slip, else a note.
fn note_unknown(fields: &Fields, out: &mut Findings) {
    for entry in fields.unknown() {
        let path = fields.path_of(&entry.key);
        let stray =
            STRAYS.iter().find(|(stray, _)| *stray == path).map(|(_, hint)| (*hint).to_owned());
        let hint = stray
            .or_else(|| fields.meant(&entry.key).map(|near| format!("did you mean `{near}`?")));
        out.push(match hint {
            Some(hint) => Diagnostic::warning(entry.mark, &path, "unknown key, ignored").hint(hint),
            None => Diagnostic::note(entry.mark, &path, "unknown key, ignored"),
        });
    }
}
