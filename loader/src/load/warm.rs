//! A package from its snapshot: nothing of its weights, tokenizer or template is looked at again.

use std::sync::Arc;
use std::thread;

use pinion_kernels::{Device, WeightType};
use pinion_models::ModelConfig;
use serde::{Deserialize, Serialize};

use super::{LoadOptions, LoadedPackage, build, target};
use crate::files::PackageFiles;
use crate::metadata::SpecialTokens;
use crate::resolve::read_manifest;
use crate::snapshot::{
    COMPACT_TOKENIZER, CONFIG, Origin, Refusal, RestoredSource, Snapshot, SnapshotError, TEMPLATE,
    TOKENIZER,
};
use crate::template::{ChatTemplate, TemplateText};
use crate::tokenizer::PackageTokenizer;

/// What the file of the template holds.
#[derive(Serialize, Deserialize)]
struct Template {
    text: Option<TemplateText>,
    special: SpecialTokens,
}

/// The text of the file of the template.
pub(super) fn template_text(text: Option<TemplateText>, special: SpecialTokens) -> String {
    serde_json::to_string(&Template { text, special }).expect("texts are JSON")
}

/// Loads from a snapshot; nothing where there is none. A snapshot that cannot be used is refused.
pub(super) fn load(
    files: &PackageFiles,
    options: &LoadOptions,
) -> Result<Option<LoadedPackage>, Refusal> {
    let snapshots = &options.snapshots;
    let (Some(folder), Some(package)) = (&snapshots.restore, &snapshots.package) else {
        return Ok(None);
    };
    // A manifest that does not read fails the load from files, which says why.
    let Ok(manifest) = read_manifest(files) else { return Ok(None) };
    let target = target(options, manifest.pinion.dtype);
    let refuse = |reason: String| Refusal { target: target.key(), reason };
    let snapshot = match Snapshot::open(folder, package, &target) {
        Ok(snapshot) => snapshot,
        Err(SnapshotError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(refuse(error.to_string())),
    };
    if snapshots.verify_first {
        snapshot.verify(&mut |_, _| {}).map_err(|error| refuse(error.to_string()))?;
    }
    let declared = manifest.pinion.max_model_len.map(|len| len as usize);
    let max_model_len = options.max_model_len.or(declared);
    restore(&snapshot, max_model_len, &options.device).map(Some).map_err(refuse)
}

fn restore(
    snapshot: &Arc<Snapshot>,
    max_model_len: Option<usize>,
    device: &Device,
) -> Result<LoadedPackage, String> {
    let text = |name| snapshot.text(name).map_err(|e| e.to_string());
    let notes = &snapshot.manifest().notes;
    let config = ModelConfig::parse(&text(CONFIG)?).map_err(|e| e.to_string())?;
    let config = config.with_max_model_len(max_model_len);
    let kind = match &notes.kept_as {
        None => None,
        Some(name) => {
            Some(WeightType::parse(name).ok_or_else(|| format!("unknown weight type: {name}"))?)
        }
    };
    let image = Arc::clone(snapshot);
    // While the tokenizer loads, the weights come: a step that meets pages which are not there waits for each.
    let prefetch = thread::Builder::new().name("prefetch".to_owned());
    if let Err(error) = prefetch.spawn(move || image.prefetch()) {
        return Err(format!("no thread could be started: {error}"));
    }
    let source = Arc::new(RestoredSource(Arc::clone(snapshot)));
    let model = build(&config, source, kind, device).map_err(|e| e.to_string())?;
    let tokenizer = tokenizer(snapshot)?;
    let template: Template = serde_json::from_str(&text(TEMPLATE)?).map_err(|e| e.to_string())?;
    let compile = |text: TemplateText| ChatTemplate::compile(&text, template.special.clone());
    Ok(LoadedPackage {
        spec: model.spec().clone(),
        model,
        architecture: notes.architecture.clone(),
        dtype: notes.dtype.clone(),
        tokenizer,
        template: template.text.map(compile).transpose().map_err(|e| e.to_string())?,
        eos_token_ids: notes.eos_token_ids.clone(),
        defaults: notes.defaults,
        warnings: notes.warnings.clone(),
        origin: Origin::Warm(Arc::clone(snapshot)),
        refused: None,
    })
}

fn tokenizer(snapshot: &Snapshot) -> Result<PackageTokenizer, String> {
    let notes = &snapshot.manifest().notes;
    let read = |name| snapshot.bytes(name).map_err(|e| e.to_string());
    if snapshot.manifest().files.contains_key(COMPACT_TOKENIZER) {
        let bytes = read(COMPACT_TOKENIZER)?;
        return PackageTokenizer::decode_compact(&bytes, COMPACT_TOKENIZER, notes.vocab_size)
            .map_err(|e| e.to_string());
    }
    let text = snapshot.text(TOKENIZER).map_err(|e| e.to_string())?;
    PackageTokenizer::parse(&text, TOKENIZER, notes.vocab_size).map_err(|e| e.to_string())
}
