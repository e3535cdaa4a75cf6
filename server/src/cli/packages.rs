//! From what a user names to what a worker loads.

use std::path::{Path, PathBuf};

use pinion_cog_compat::manifest::{Backend, Manifest};

use super::{CliError, terminal};
use pinion_loader::snapshot::Store;

use crate::config::{MAX_SPECULATIVE_TOKENS, SnapshotConfig, SnapshotMode, WorkerConfig, env_os};
use crate::ipc::{LoadRequest, PackageSource, SnapshotRequest};
use crate::supervisor::{PackageSpec, SnapshotPolicy};

/// Sequences that run at once, where neither package nor operator says.
const MAX_NUM_SEQS: u32 = 64;

/// The specification of a package named on the command line; the starter for none.
pub(crate) fn specify(name: Option<&str>, config: &WorkerConfig) -> Result<PackageSpec, CliError> {
    let (source, yaml, shown) = match name {
        None => {
            let yaml = pinion_loader::starter::manifest_text().as_bytes().to_vec();
            (PackageSource::Starter, yaml, "pinion-tiny/cog.yaml".to_owned())
        }
        Some(name) => {
            let directory = directory(name)?;
            let file = directory.join("cog.yaml");
            let yaml = read_manifest(&file)?;
            (PackageSource::Directory(directory), yaml, file.display().to_string())
        }
    };
    let manifest = parse(&yaml, &shown)?;
    let name = match &source {
        PackageSource::Starter => pinion_loader::starter::NAME.to_owned(),
        PackageSource::Directory(directory) => package_name(directory),
    };
    check_backend(&name, &manifest, config)?;
    let pinion = &manifest.pinion;
    let max_num_seqs = config.max_num_seqs.or(pinion.max_num_seqs).unwrap_or(MAX_NUM_SEQS);
    let load = LoadRequest {
        source,
        device: config.device.clone(),
        dtype: config.dtype.clone().or(pinion.dtype.map(|dtype| dtype.name().to_owned())),
        max_model_len: config.max_model_len.or(pinion.max_model_len),
        max_num_seqs,
        max_num_batched_tokens: config.max_num_batched_tokens.max(max_num_seqs),
        max_waiting: config.max_queue,
        class_shares: config.class_shares,
        kv_cache_bytes: config.kv_cache_bytes,
        kv_cache_dtype: config.kv_cache_dtype.clone(),
        threads: config.threads,
        memory_headroom_bytes: config.memory_headroom_bytes,
        prefix_cache: config.prefix_cache,
        speculative_tokens: config
            .speculative_tokens
            .or(pinion.speculative_tokens)
            .unwrap_or(0)
            .min(MAX_SPECULATIVE_TOKENS),
        snapshot: SnapshotRequest::default(),
    };
    Ok(PackageSpec {
        name,
        manifest,
        load,
        snapshots: snapshots(&config.snapshots)?,
        program: program()?,
        max_in_flight: (max_num_seqs + config.max_queue) as usize,
        hang_timeout: config.hang_timeout,
        step_timeout: config.step_timeout,
        render_timeout: config.render_timeout,
    })
}

/// The store of snapshots; none where there shall be, or can be, none.
fn snapshots(config: &SnapshotConfig) -> Result<Option<SnapshotPolicy>, CliError> {
    if config.mode == SnapshotMode::Off {
        return Ok(None);
    }
    match open_store(config) {
        Ok(store) => {
            let (limit, verify, write) = (config.limit, config.verify, config.write);
            Ok(Some(SnapshotPolicy { store, limit, verify, write }))
        }
        Err(error) if config.mode == SnapshotMode::On => Err(error),
        Err(error) => {
            terminal::note(format!("warning: packages start without snapshots: {error}"));
            Ok(None)
        }
    }
}

/// Opens the store that the configuration names.
pub(crate) fn open_store(config: &SnapshotConfig) -> Result<Store, CliError> {
    let Some(directory) = &config.directory else {
        return Err(CliError::failed("there is no directory for snapshots")
            .hint("set --snapshot-dir or HOME"));
    };
    Store::open(directory).map_err(|error| CliError::failed(error.to_string()))
}

/// The directory that a package name means.
pub(crate) fn directory(name: &str) -> Result<PathBuf, CliError> {
    if let Some((scheme, _)) = name.split_once("://") {
        return Err(CliError::failed(format!(
            "packages are not fetched from {scheme}:// yet: {name}"
        ))
        .hint("download it and name its directory"));
    }
    let path = Path::new(name);
    if path.is_dir() {
        return path.canonicalize().map_err(|e| CliError::failed(format!("{name}: {e}")));
    }
    let error = CliError::not_found(format!("no such package directory: {name}"));
    Err(if path.is_file() {
        error.hint("name the directory that holds cog.yaml")
    } else {
        error.hint("name a directory with a cog.yaml; `pinion init DIR` makes one")
    })
}

/// The bytes of a `cog.yaml`.
pub(crate) fn read_manifest(file: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            CliError::not_found(format!("no such file: {}", file.display()))
                .hint("a package is a directory with a cog.yaml; `pinion init DIR` makes one")
        }
        _ => CliError::failed(format!("{}: {error}", file.display())),
    })
}

/// Parses a `cog.yaml`, printing every finding as `file:line:column`.
pub(crate) fn parse(yaml: &[u8], shown: &str) -> Result<Manifest, CliError> {
    Manifest::parse_bytes(yaml).map_err(|diagnostics| {
        for diagnostic in &diagnostics {
            terminal::note(diagnostic.to_string());
        }
        let count = diagnostics.iter().filter(|one| one.is_error()).count();
        let word = if count == 1 { "error" } else { "errors" };
        CliError::failed(format!("{shown} has {count} {word}"))
    })
}

fn check_backend(name: &str, manifest: &Manifest, config: &WorkerConfig) -> Result<(), CliError> {
    let hint = manifest.backend_hint();
    let (backend, reason) = match &config.backend {
        None => (hint.backend, hint.reason),
        Some(wanted) => {
            let backend = Backend::from_name(wanted).ok_or_else(|| {
                CliError::usage(format!("no such backend: {wanted}"))
                    .hint("use native, container or process")
            })?;
            (backend, "--backend says so".to_owned())
        }
    };
    terminal::note(format!("{name}: {} backend, because {reason}", backend.name()));
    if backend == Backend::Native {
        return Ok(());
    }
    let message = format!("this build cannot run the {} backend yet: {name}", backend.name());
    Err(CliError::failed(message).hint("serve a package without `run` or `predict`"))
}

/// Lower-case name of the directory, as clients write it.
fn package_name(directory: &Path) -> String {
    let name = directory.file_name().map(|name| name.to_string_lossy().to_lowercase());
    name.unwrap_or_else(|| "package".to_owned())
}

/// The running binary, which is also the worker's. `PINION_WORKER` names another.
fn program() -> Result<PathBuf, CliError> {
    if let Some(program) = env_os("PINION_WORKER") {
        return Ok(program.into());
    }
    std::env::current_exe()
        .map_err(|e| CliError::failed(format!("the path of this program is unknown: {e}")))
}
