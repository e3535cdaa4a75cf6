//! What a package is: its manifest, what executes it and why, and where its weights are.

use pinion_cog_compat::Manifest;
use pinion_cog_compat::manifest::{Backend, Scheme, WeightSource};
use pinion_models::ModelConfig;

use crate::error::LoadError;
use crate::files::{PackageFiles, join, relative};
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
    /// The text of `config.json`.
    pub config_json: String,
    /// The same, parsed.
    pub config: ModelConfig,
    /// The weight files.
    pub checkpoint: Checkpoint,
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
    let weights_dir = weights_dir(files, manifest, warnings)?;
    let file = join(&weights_dir, CONFIG);
    let Some(config_json) = files.read_text(&file, LIMITS.metadata_bytes)? else {
        // The directory may hold GGUF or pickle weights alone, which deserve their own words.
        source::find(files, &weights_dir)?;
        return Err(LoadError::ConfigMissing { file });
    };
    let config = ModelConfig::parse(&config_json)
        .map_err(|e| LoadError::Config { file, reason: e.to_string() })?;
    let checkpoint = source::find(files, &weights_dir)?;
    Ok(NativePackage { weights_dir, config_json, config, checkpoint })
}

/// Local `weights:` sources first, then `weights/`, then the package itself.
fn weights_dir(
    files: &PackageFiles,
    manifest: &Manifest,
    warnings: &mut Vec<String>,
) -> Result<String, LoadError> {
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
    for (_, dir) in &named {
        if has_config(files, dir)? {
            return Ok(dir.clone());
        }
    }
    if let Some((source, dir)) = named.first() {
        return missing_local(files, source, dir);
    }
    if has_config(files, WEIGHTS)? || (remote.is_none() && !files.list(WEIGHTS)?.is_empty()) {
        return Ok(WEIGHTS.to_owned());
    }
    match remote {
        Some(source) => Err(LoadError::RemoteWeights { uri: source.uri.clone() }),
        None => Ok(String::new()),
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

/// The directory that a bare path or the rest of a `file://` URI means.
fn local_dir(files: &PackageFiles, path: &str) -> Result<String, LoadError> {
    let inside = match files.path() {
        Some(root) if path.starts_with('/') => {
            std::path::Path::new(path).strip_prefix(root).ok().and_then(|inside| inside.to_str())
        }
        _ => None,
    };
    let path = inside.unwrap_or(path);
    if path.split('/').all(|part| part.is_empty() || part == ".") && !path.starts_with('/') {
        return Ok(String::new());
    }
    let path = relative(path)?;
    let is_file = std::path::Path::new(&path).extension().is_some_and(|e| e == "safetensors");
    if !is_file {
        return Ok(path);
    }
    Ok(path.rsplit_once('/').map_or_else(String::new, |(dir, _)| dir.to_owned()))
}
