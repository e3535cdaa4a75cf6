//! What a package is: its manifest, what executes it and why, and where its weights are.

use std::sync::Arc;

use pinion_cog_compat::Manifest;
use pinion_cog_compat::manifest::{Backend, Scheme, WeightSource};
use pinion_models::ModelConfig;

use crate::error::LoadError;
use crate::files::{PackageFiles, join, relative};
use crate::gguf::{self, Gguf};
use crate::limits::LIMITS;
use crate::source::{self, Checkpoint};

/// The manifest's name in a package.
pub const MANIFEST: &str = "cog.yaml";
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "weights";

/// What executes a package, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The backend.
    pub backend: Backend,
    /// False while only the weights can tell whether `native` is possible; [`inspect`] then decides.
    pub certain: bool,
    /// To be printed after the backend.
    pub reason: String,
}

/// A package that was looked into. Nothing large has been read.
#[derive(Clone, Debug)]
pub struct ResolvedPackage {
    /// Its files.
    pub files: PackageFiles,
    /// Its `cog.yaml`.
    pub manifest: Manifest,
    /// What executes it.
    pub decision: Decision,
    /// What the native backend needs; absent where a runner decided against it.
    pub native: Option<NativePackage>,
    /// Worth telling, nothing that stops.
    pub warnings: Vec<String>,
}

/// The weights of a package and what they are of.
#[derive(Clone, Debug)]
pub struct NativePackage {
    /// Directory of the weights in the package; empty for the package itself.
    pub weights_dir: String,
    /// The text of `config.json`, or what the metadata of a GGUF file amount to.
    pub config_json: String,
    /// The same, parsed.
    pub config: ModelConfig,
    /// The weight files.
    pub checkpoint: Checkpoint,
    /// The weights, opened, where they are a GGUF file.
    pub gguf: Option<Arc<Gguf>>,
}

/// Decides from the manifest alone, which is all that the daemon reads. `wanted` is the operator's `--backend`.
pub fn decide(manifest: &Manifest, wanted: Option<Backend>) -> Decision {
    if let Some(backend) = wanted {
        let reason = format!("`--backend {}` was given", backend.name());
        return Decision { backend, certain: true, reason };
    }
    let hint = manifest.backend_hint();
    Decision { backend: hint.backend, certain: hint.certain, reason: hint.reason }
}

/// Reads `cog.yaml`.
pub fn read_manifest(files: &PackageFiles) -> Result<Manifest, LoadError> {
    let Some(bytes) = files.open(MANIFEST)? else {
        return Err(LoadError::ManifestMissing { package: files.to_string() });
    };
    Manifest::parse_bytes(&bytes).map_err(LoadError::Manifest)
}

/// Looks into a package: manifest, `config.json`, names of the weight files and their index.
pub fn inspect(
    files: &PackageFiles,
    wanted: Option<Backend>,
) -> Result<ResolvedPackage, LoadError> {
    let manifest = read_manifest(files)?;
    let mut decision = decide(&manifest, wanted);
    let mut warnings = Vec::new();
    let native = match decision.backend {
        Backend::Native => Some(native(files, &manifest, &mut warnings)?),
        Backend::Container | Backend::Process => None,
    };
    if let Some(native) = &native
        && !decision.certain
    {
        decision = settle(decision, native.config.architecture());
    }
    Ok(ResolvedPackage { files: files.clone(), manifest, decision, native, warnings })
}

/// The second half of a decision that needed the weights.
fn settle(decision: Decision, architecture: &str) -> Decision {
    let reason = decision.reason;
    if pinion_models::is_supported(architecture) {
        let reason = format!("{reason}, and {architecture} is supported");
        return Decision { backend: Backend::Native, certain: true, reason };
    }
    let reason = format!("{reason}, but {architecture} is not supported natively");
    Decision { backend: Backend::Container, certain: true, reason }
}

fn native(
    files: &PackageFiles,
    manifest: &Manifest,
    warnings: &mut Vec<String>,
) -> Result<NativePackage, LoadError> {
    let (weights_dir, named) = weights_dir(files, manifest, warnings)?;
    let checkpoint = match named {
        Some(file) => Checkpoint::Gguf(file),
        None => source::find(files, &weights_dir)?,
    };
    if let Checkpoint::Gguf(file) = &checkpoint {
        return native_gguf(files, weights_dir, file.clone());
    }
    let file = join(&weights_dir, CONFIG);
    let Some(config_json) = files.read_text(&file, LIMITS.metadata_bytes)? else {
        return Err(LoadError::ConfigMissing { file });
    };
    let config = ModelConfig::parse(&config_json)
        .map_err(|e| LoadError::Config { file, reason: e.to_string() })?;
    Ok(NativePackage { weights_dir, config_json, config, checkpoint, gguf: None })
}

/// A GGUF file says what it is, whatever lies beside it.
fn native_gguf(
    files: &PackageFiles,
    weights_dir: String,
    file: String,
) -> Result<NativePackage, LoadError> {
    let bytes = files.open(&file)?;
    let bytes = bytes.ok_or_else(|| LoadError::SourceMissing { uri: file.clone() })?;
    let gguf = Arc::new(Gguf::open(&file, bytes)?);
    let config_json = gguf::config_json(&gguf)?;
    let config = ModelConfig::parse(&config_json)
        .map_err(|e| LoadError::Config { file: file.clone(), reason: e.to_string() })?;
    let checkpoint = Checkpoint::Gguf(file);
    Ok(NativePackage { weights_dir, config_json, config, checkpoint, gguf: Some(gguf) })
}

/// Where the weights are, and the GGUF file among them if `weights:` names it.
///
/// Local `weights:` sources first, then `weights/`, then the package itself.
fn weights_dir(
    files: &PackageFiles,
    manifest: &Manifest,
    warnings: &mut Vec<String>,
) -> Result<(String, Option<String>), LoadError> {
    let mut named = Vec::new();
    let mut remote = None;
    for source in manifest.weights.iter().flat_map(|spec| &spec.sources) {
        match source.scheme() {
            Some((Scheme::File, path)) => {
                if !source.include.is_empty() || !source.exclude.is_empty() {
                    warnings.push(format!(
                        "include and exclude are not applied to local weights: {}",
                        source.uri
                    ));
                }
                named.push((source, local_dir(files, path)?));
            }
            _ => remote = Some(source),
        }
    }
    for (_, (dir, gguf)) in &named {
        if gguf.is_some() || has_config(files, dir)? {
            return Ok((dir.clone(), gguf.clone()));
        }
    }
    if let Some((source, (dir, _))) = named.first() {
        return missing_local(files, source, dir).map(|dir| (dir, None));
    }
    if has_config(files, WEIGHTS)? || (remote.is_none() && !files.list(WEIGHTS)?.is_empty()) {
        return Ok((WEIGHTS.to_owned(), None));
    }
    match remote {
        Some(source) => Err(LoadError::RemoteWeights { uri: source.uri.clone() }),
        None => Ok((String::new(), None)),
    }
}

fn missing_local(
    files: &PackageFiles,
    source: &WeightSource,
    dir: &str,
) -> Result<String, LoadError> {
    if files.list(dir)?.is_empty() {
        return Err(LoadError::SourceMissing { uri: source.uri.clone() });
    }
    Ok(dir.to_owned())
}

fn has_config(files: &PackageFiles, dir: &str) -> Result<bool, LoadError> {
    Ok(files.open(&join(dir, CONFIG))?.is_some())
}

/// The directory that a bare path or the rest of a `file://` URI means, and the file if it is a GGUF file.
fn local_dir(files: &PackageFiles, path: &str) -> Result<(String, Option<String>), LoadError> {
    let inside = match files.path() {
        Some(root) if path.starts_with('/') => {
            std::path::Path::new(path).strip_prefix(root).ok().and_then(|inside| inside.to_str())
        }
        _ => None,
    };
    let path = inside.unwrap_or(path);
    if path.split('/').all(|part| part.is_empty() || part == ".") && !path.starts_with('/') {
        return Ok((String::new(), None));
    }
    let path = relative(path)?;
    let directory = || path.rsplit_once('/').map_or_else(String::new, |(dir, _)| dir.to_owned());
    match std::path::Path::new(&path).extension().and_then(|extension| extension.to_str()) {
        Some("safetensors") => Ok((directory(), None)),
        Some("gguf") => Ok((directory(), Some(path))),
        _ => Ok((path, None)),
    }
}
