//! From a package to a model that can run, with its tokenizer, template and defaults.

use std::sync::Arc;

use pinion_cog_compat::manifest::DType;
use pinion_kernels::{Device, WeightType};
use pinion_models::{
    CausalLm, ModelConfig, ModelSpec, TensorKind, TensorShape, TensorSource, Weights,
    architectures, is_supported,
};
use serde_json::Value;

use crate::error::LoadError;
use crate::files::{PackageFiles, join};
use crate::gguf::{self, GgufSource};
use crate::metadata::{self, GenerationDefaults, TokenizerConfig};
use crate::progress::{Progress, ProgressFn};
use crate::quiet;
use crate::resolve::{NativePackage, ResolvedPackage, inspect};
use crate::snapshot::{
    self, Beside, Kept, Notes, Origin, Recorded, Recording, Refusal, SnapshotOptions, Target,
};
use crate::source::{Checkpoint, CheckpointSource, SafetensorsSource};
use crate::template::{self, ChatTemplate, RenderInput, TemplateText};
use crate::tokenizer::PackageTokenizer;

#[cfg(test)]
mod tests;
mod warm;

/// How to load a package, where the operator says more than the package.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Type to keep the weights as, by the name of `pinion.dtype`; `auto` and nothing mean the package's choice.
    pub dtype: Option<String>,
    /// Where the model runs.
    pub device: Device,
    /// Longest sequence in tokens, instead of the package's choice.
    pub max_model_len: Option<usize>,
    /// What of snapshots is used and made.
    pub snapshots: SnapshotOptions,
}

/// A model with everything it needs to answer.
pub struct LoadedPackage {
    /// The model.
    pub model: Box<dyn CausalLm>,
    /// Its sizes.
    pub spec: ModelSpec,
    /// As `config.json` names it.
    pub architecture: String,
    /// What the matrices are kept as.
    pub dtype: String,
    /// Text to tokens and back.
    pub tokenizer: PackageTokenizer,
    /// Messages to text; without one the package completes text only.
    pub template: Option<ChatTemplate>,
    /// Tokens that end an answer, ascending.
    pub eos_token_ids: Vec<u32>,
    /// Sampling where a request does not say.
    pub defaults: GenerationDefaults,
    /// Worth telling, nothing that stops.
    pub warnings: Vec<String>,
    /// Where it came from.
    pub origin: Origin,
    /// The snapshot that was there and was not used.
    pub refused: Option<Refusal>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            dtype: None,
            device: Device::Cpu,
            max_model_len: None,
            snapshots: SnapshotOptions::default(),
        }
    }
}

impl std::fmt::Debug for LoadedPackage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedPackage")
            .field("architecture", &self.architecture)
            .field("dtype", &self.dtype)
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

/// Loads a package natively, whatever else could execute it: that decision is [`crate::decide`]'s.
///
/// From its snapshot where there is one that can be used, and otherwise from its own files.
pub fn load(
    files: &PackageFiles,
    options: &LoadOptions,
    progress: &ProgressFn,
) -> Result<LoadedPackage, LoadError> {
    progress(Progress::Inspecting);
    let refused = match warm::load(files, options) {
        Ok(Some(loaded)) => return Ok(loaded),
        Ok(None) => None,
        Err(refusal) => Some(refusal),
    };
    let wanted = Some(pinion_cog_compat::manifest::Backend::Native);
    let loaded = load_resolved(inspect(files, wanted)?, options, progress)?;
    Ok(LoadedPackage { refused, ..loaded })
}

/// Loads a package that [`inspect`] looked into.
pub fn load_resolved(
    package: ResolvedPackage,
    options: &LoadOptions,
    progress: &ProgressFn,
) -> Result<LoadedPackage, LoadError> {
    let ResolvedPackage { files, manifest, decision, native, mut warnings } = package;
    let Some(native) = native else {
        return Err(LoadError::NotNative { reason: decision.reason });
    };
    let kind = weight_type(options.dtype.as_deref(), manifest.pinion.dtype)?;
    let declared = manifest.pinion.max_model_len.map(|len| len as usize);
    let config = supported(&native)?.with_max_model_len(options.max_model_len.or(declared));
    let directory = native.weights_dir.as_str();
    let texts = texts(&files, &native)?;
    let prompt_template = manifest.pinion.prompt_template.as_deref();
    let template_text = template::select(&files, directory, &texts, prompt_template)?;
    let template = chat_template(template_text.as_ref(), &texts, &mut warnings)?;
    let generation = metadata::read_object(&files, directory, "generation_config.json")?;
    let generation = generation.unwrap_or(Value::Null);
    let defaults = metadata::generation_defaults(&generation, &mut warnings);
    let source = open(&files, &native, progress)?;
    check_tensors(&config, &*source)?;
    let raw: Value = serde_json::from_str(&native.config_json).unwrap_or(Value::Null);
    let vocab_size = raw["vocab_size"].as_u64().unwrap_or(0) as usize;
    let (tokenizer_text, tokenizer_file) = tokenizer_text(&files, &native)?;
    let tokenizer = PackageTokenizer::parse(&tokenizer_text, &tokenizer_file, vocab_size)?;
    warn_of_added_tokens(&tokenizer, &mut warnings);
    let eos_token_ids = eos_token_ids(&tokenizer, &texts, &[&generation, &raw], &mut warnings);
    let own = source.own_type();
    let kind = kind.filter(|kind| kind.name() != own);
    refuse_requantizing(&own, kind)?;
    let dtype = kind.map_or(own, |kind| kind.to_string());
    let recording = Arc::new(Recording::new(source));
    let record = options.snapshots.record;
    let source = if record { Arc::clone(&recording) as _ } else { recording.checkpoint() };
    let model = build(&config, source, kind, &options.device)?;
    let mut loaded = LoadedPackage {
        spec: model.spec().clone(),
        model,
        architecture: config.architecture().to_owned(),
        dtype,
        tokenizer,
        template,
        eos_token_ids,
        defaults,
        warnings,
        origin: Origin::Cold(None),
        refused: None,
    };
    if record {
        let beside: Beside = vec![
            (snapshot::CONFIG, native.config_json),
            (snapshot::TOKENIZER, tokenizer_text),
            (snapshot::TEMPLATE, warm::template_text(template_text, texts.special)),
        ];
        let target = target(options, manifest.pinion.dtype);
        let recorded = recorded(&loaded, kind, recording.take(), beside, target);
        loaded.origin = Origin::Cold(Some(Box::new(recorded)));
    }
    Ok(loaded)
}

/// What a snapshot of a package is made of.
fn recorded(
    loaded: &LoadedPackage,
    kind: Option<WeightType>,
    kept: Kept,
    beside: Beside,
    target: Target,
) -> Recorded {
    let notes = Notes {
        architecture: loaded.architecture.clone(),
        dtype: loaded.dtype.clone(),
        kept_as: kind.map(|kind| kind.name().to_owned()),
        vocab_size: loaded.tokenizer.vocab_size(),
        eos_token_ids: loaded.eos_token_ids.clone(),
        defaults: loaded.defaults,
        warnings: loaded.warnings.clone(),
        block_types: kept.block_types,
    };
    Recorded { target, tensors: kept.tensors, notes, beside }
}

/// What a snapshot of this load is for.
fn target(options: &LoadOptions, declared: Option<DType>) -> Target {
    Target::of(&options.device, options.dtype.as_deref().or(declared.map(DType::name)))
}

/// The weights, opened.
fn open(
    files: &PackageFiles,
    native: &NativePackage,
    progress: &ProgressFn,
) -> Result<Arc<dyn CheckpointSource>, LoadError> {
    let progress = Arc::clone(progress);
    Ok(match &native.gguf {
        Some(gguf) => Arc::new(GgufSource::new(Arc::clone(gguf), progress)?),
        None => Arc::new(SafetensorsSource::open(files, &native.checkpoint, progress)?),
    })
}

/// Special tokens and templates: `tokenizer_config.json`, else what a GGUF file says.
fn texts(files: &PackageFiles, native: &NativePackage) -> Result<TokenizerConfig, LoadError> {
    let given = metadata::tokenizer_config(files, &native.weights_dir)?;
    match &native.gguf {
        Some(gguf) if given == TokenizerConfig::default() => Ok(gguf::texts(gguf)?),
        _ => Ok(given),
    }
}

/// The text of the tokenizer, and where it is from: `tokenizer.json`, else that of a GGUF file.
fn tokenizer_text(
    files: &PackageFiles,
    native: &NativePackage,
) -> Result<(String, String), LoadError> {
    let file = join(&native.weights_dir, "tokenizer.json");
    match (&native.gguf, &native.checkpoint) {
        (Some(gguf), Checkpoint::Gguf(path)) if files.open(&file)?.is_none() => {
            Ok((gguf::tokenizer_json(gguf)?, path.clone()))
        }
        _ => Ok((PackageTokenizer::text(files, &file)?, file)),
    }
}

fn supported(native: &NativePackage) -> Result<ModelConfig, LoadError> {
    let config = native.config.clone();
    if !is_supported(config.architecture()) {
        return Err(LoadError::Architecture {
            architecture: config.architecture().to_owned(),
            supported: architectures().collect::<Vec<_>>().join(", "),
        });
    }
    match config.unsupported_quant_method() {
        Some(method) => Err(LoadError::Quantization { method: method.to_owned() }),
        None => Ok(config),
    }
}

fn weight_type(
    wanted: Option<&str>,
    declared: Option<DType>,
) -> Result<Option<WeightType>, LoadError> {
    let name = wanted.or(declared.map(DType::name));
    match name {
        None | Some("auto") => Ok(None),
        Some(name) => match WeightType::parse(name) {
            Some(kind) => Ok(Some(kind)),
            None => Err(LoadError::Dtype { dtype: name.to_owned() }),
        },
    }
}

/// Weights that were rounded once are not rounded again.
fn refuse_requantizing(stored: &str, wanted: Option<WeightType>) -> Result<(), LoadError> {
    let quantized = |kind: &WeightType| kind.is_quantized();
    match (WeightType::parse(stored).filter(quantized), wanted.filter(quantized)) {
        (Some(stored), Some(wanted)) => Err(LoadError::Requantize {
            stored: stored.name().to_owned(),
            wanted: wanted.name().to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Compiles the template and renders one chat, so that a broken one is known before the first request.
fn chat_template(
    text: Option<&TemplateText>,
    texts: &TokenizerConfig,
    warnings: &mut Vec<String>,
) -> Result<Option<ChatTemplate>, LoadError> {
    let Some(text) = text else {
        warnings.push("the package has no chat template: it completes text only".to_owned());
        return Ok(None);
    };
    let template = ChatTemplate::compile(text, texts.special.clone())?;
    let messages = serde_json::json!([{"role": "user", "content": "Hello."}]);
    let input = RenderInput {
        messages: &messages,
        tools: None,
        extra: None,
        add_generation_prompt: true,
        unix_seconds: 0,
    };
    if let Err(e) = template.render(&input) {
        warnings.push(format!("the chat template refuses a single user message: {e}"));
    }
    Ok(Some(template))
}

/// Compares names and shapes with what the model will read, before any weight is read.
fn check_tensors(config: &ModelConfig, source: &dyn CheckpointSource) -> Result<(), LoadError> {
    let config_error = |e: candle_core::Error| LoadError::Config {
        file: "config.json".to_owned(),
        reason: e.to_string(),
    };
    let expected = quiet::catch(|| config.tensors())
        .map_err(|reason| LoadError::Build { reason })?
        .map_err(config_error)?;
    let shape = |tensor: &TensorShape| {
        let alias = || tensor.alias.as_deref().and_then(|alias| source.shape(alias));
        source.shape(&tensor.name).or_else(alias)
    };
    let mut wrong = expected.iter().filter_map(|tensor| match shape(tensor) {
        None => Some(format!("tensor `{}` is missing", tensor.name)),
        Some(shape) if shape != tensor.shape => Some(format!(
            "tensor `{}` has shape {shape:?}, expected {:?}",
            tensor.name, tensor.shape
        )),
        Some(_) => None,
    });
    if let Some(first) = wrong.next() {
        return Err(LoadError::Mismatch { first, others: wrong.count() });
    }
    let floats = expected.iter().filter(|tensor| tensor.kind == TensorKind::Floats);
    let mut names = floats.flat_map(|tensor| [Some(&tensor.name), tensor.alias.as_ref()]);
    Ok(names.try_for_each(|name| name.map_or(Ok(()), |name| source.check_dtype(name)))?)
}

fn build(
    config: &ModelConfig,
    source: Arc<dyn TensorSource>,
    kind: Option<WeightType>,
    device: &Device,
) -> Result<Box<dyn CausalLm>, LoadError> {
    let weights = Weights::new(source, kind).on(device);
    quiet::catch(|| pinion_models::build(config, &weights))
        .and_then(|model| model.map_err(|e| e.to_string()))
        .map_err(|reason| LoadError::Build { reason })
}

fn warn_of_added_tokens(tokenizer: &PackageTokenizer, warnings: &mut Vec<String>) {
    let tokens = tokenizer.added_out_of_vocabulary();
    if let Some(first) = tokens.first() {
        let others = match tokens.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        warnings.push(format!(
            "prompts with `{first}`{others} are refused: the model has no such token"
        ));
    }
}

/// Every token that one of the configs calls the end of a text.
fn eos_token_ids(
    tokenizer: &PackageTokenizer,
    texts: &TokenizerConfig,
    configs: &[&Value],
    warnings: &mut Vec<String>,
) -> Vec<u32> {
    let mut ids: Vec<u32> = configs.iter().flat_map(|config| metadata::eos_ids(config)).collect();
    if let Some(eos) = &texts.special.eos {
        match tokenizer.token_to_id(eos) {
            Some(id) => ids.push(id),
            None => warnings.push(format!("eos_token is not in the vocabulary: {eos:?}")),
        }
    }
    ids.sort_unstable();
    ids.dedup();
    ids.retain(|&id| {
        let known = (id as usize) < tokenizer.vocab_size();
        if !known {
            warnings.push(format!("eos_token_id is not in the vocabulary: {id}"));
        }
        known
    });
    if ids.is_empty() {
        warnings.push("no end-of-text token is known: answers end at max_tokens".to_owned());
    }
    ids
}
