//! From a package to an engine that has run its first step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::DType;
use parking_lot::Mutex;
use pinion_engine::{
    BlockPool, ClassConfig, Engine, EngineHandle, EngineParts, PerClass, Scheduler,
    SchedulerConfig, StepOutput,
};
use pinion_kernels::{Device, KvCacheSpec, PagedKvCache};
use pinion_loader::snapshot::{Origin, SnapshotOptions};
use pinion_loader::{LoadOptions, LoadedPackage, PackageFiles, Progress};
use pinion_models::ModelSpec;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{Receiver, channel};

use super::identity::identity;
use super::prepare::Prompts;
use super::snapshot::{self, Source};
use super::{Loader, Outbox, package_error};
use super::{memory, sandbox};
use crate::ipc::{
    ErrorKind, FromWorker, LoadRequest, LoadStage, ModelInfo, PackageSource, Verify, WorkerError,
};

/// Tokens in a KV block.
const BLOCK_SIZE: usize = 16;
/// Percent of the free memory that the KV cache takes at most when nobody says how much: of the host
/// others need some too, and a GPU keeps the rest for activations.
const KV_PERCENT: u64 = 40;
const GPU_KV_PERCENT: u64 = 85;
/// Least time between two progress messages.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);
/// Step outputs that may wait for the output thread before the engine does.
const OUTPUT_STEPS: usize = 64;

/// A package that is ready to serve.
pub(super) struct Loaded {
    pub(super) engine: EngineHandle,
    pub(super) outputs: Receiver<StepOutput>,
    pub(super) prompts: Prompts,
    pub(super) info: ModelInfo,
    /// Bytes in use, from which the memory limit counts.
    pub(super) headroom_from: Option<u64>,
    /// What it came from.
    pub(super) source: Source,
}

/// Loads, allocates, starts the engine's thread and runs one step.
pub(super) fn load(
    request: &LoadRequest,
    outbox: &Outbox,
    loader: Loader,
) -> Result<Loaded, WorkerError> {
    let started = Instant::now();
    if let Some(threads) = request.threads {
        pinion_kernels::pool::set_num_threads(threads as usize);
    }
    let device = device(&request.device)?;
    let files = match &request.source {
        PackageSource::Starter => pinion_loader::starter::files(),
        PackageSource::Directory(path) => PackageFiles::directory(path)
            .map_err(|e| package_error(e.code(), e.to_string(), e.hint()))?,
    };
    let mut options = LoadOptions {
        dtype: request.dtype.clone(),
        device: device.clone(),
        max_model_len: request.max_model_len.map(|len| len as usize),
        snapshots: SnapshotOptions {
            restore: request.snapshot.restore.clone(),
            package: request.snapshot.package.clone(),
            verify_first: request.snapshot.verify == Verify::Full,
            record: request.snapshot.staging.is_some(),
        },
    };
    let load = |options: &LoadOptions| {
        if let Some(used) = memory::data_bytes() {
            let needed = memory::loading_bytes(&request.source)
                .saturating_add(request.memory_headroom_bytes);
            sandbox::limit_memory_for_now(used, needed);
        }
        let package = loader(&files, options, &progress(outbox)).map_err(snapshot::load_error)?;
        if let Some(refused) = &package.refused {
            snapshot::refused(outbox, refused.target.clone(), refused.reason.clone());
        }
        outbox.send(&FromWorker::Loading { stage: LoadStage::Warming, done: 0, total: 0 });
        sandbox::lift_memory_limit();
        Ok::<_, WorkerError>(package)
    };
    let package = load(&options)?;
    let restored = match &package.origin {
        Origin::Warm(snapshot) => Some(snapshot.manifest().target.key()),
        Origin::Cold(_) => None,
    };
    match (serve(package, request, &device, started), restored) {
        // Whatever is wrong with a snapshot, the package's own files are there.
        (Err(error), Some(target)) => {
            snapshot::refused(outbox, target, error.message);
            options.snapshots.restore = None;
            serve(load(&options)?, request, &device, started)
        }
        (served, _) => served,
    }
}

fn serve(
    package: LoadedPackage,
    request: &LoadRequest,
    device: &Device,
    started: Instant,
) -> Result<Loaded, WorkerError> {
    let LoadedPackage { model, tokenizer, template, eos_token_ids, defaults, warnings, .. } =
        package;
    let spec = model.spec().clone();
    let free = device.free_memory().map_err(broken)?.or_else(memory::available_bytes);
    let kv_spec = kv_spec(&spec, request, &package.dtype, share(free, device))?;
    let kv = PagedKvCache::allocate_on(&kv_spec, device).map_err(broken)?;
    let config = SchedulerConfig {
        max_num_seqs: request.max_num_seqs as usize,
        max_num_batched_tokens: request.max_num_batched_tokens as usize,
        max_chunk: request.max_num_batched_tokens as usize,
        max_model_len: spec.max_model_len,
        classes: PerClass::from_fn(|class| ClassConfig {
            max_waiting: request.max_waiting as usize,
            share_percent: request.class_shares[class as usize] as usize,
        }),
        vocab_size: spec.vocab_size,
        prefix_cache: request.prefix_cache,
        package: package_identity(&request.source),
        num_draft_tokens: request.speculative_tokens as usize,
    };
    let scheduler = Scheduler::new(config, BlockPool::new(kv_spec.num_blocks, BLOCK_SIZE));
    let attention = device.attention();
    let clock = Box::new(move || started.elapsed());
    let parts = EngineParts { model, kv, attention, scheduler, clock };
    let (engine, handle) =
        Engine::new(parts).map_err(|e| package_error("engine_mismatch", e.to_string(), None))?;
    let (to_output, mut outputs) = channel(OUTPUT_STEPS);
    std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            if let Err(error) = engine.run(&to_output) {
                tracing::error!("{error}");
            }
        })
        .map_err(broken)?;
    let kv_dtype = kv_spec.dtype.as_str();
    let source = Source::check(package.origin, &handle, &mut outputs, &tokenizer, kv_dtype)?;
    let (context, runs_on) = (spec.max_model_len.to_string(), device.describe());
    let computed = [&*package.dtype, kv_dtype, &*context, &*runs_on];
    let identity = identity(&request.source, &computed).map_err(broken)?;
    let info = ModelInfo {
        architecture: package.architecture,
        dtype: package.dtype,
        device: runs_on,
        num_parameters: spec.num_parameters,
        weight_bytes: spec.weight_bytes,
        max_model_len: spec.max_model_len as u32,
        max_num_seqs: request.max_num_seqs,
        block_size: BLOCK_SIZE as u32,
        num_blocks: kv_spec.num_blocks as u32 - 1,
        vocab_size: spec.vocab_size as u32,
        has_chat_template: template.is_some(),
        load_millis: started.elapsed().as_millis() as u64,
        temperature: defaults.temperature,
        top_p: defaults.top_p,
        top_k: defaults.top_k,
        identity,
        warnings,
    };
    let max_model_len = spec.max_model_len;
    let prompts = Prompts {
        tokenizer: Arc::new(tokenizer),
        template,
        eos_token_ids,
        defaults,
        max_model_len,
        epoch: started,
    };
    let headroom_from = memory::data_bytes();
    Ok(Loaded { engine: handle, outputs, prompts, info, headroom_from, source })
}

/// Tells the caches of packages apart. One engine serves one package, so it need not say more.
fn package_identity(source: &PackageSource) -> u128 {
    let name = match source {
        PackageSource::Starter => return 0,
        PackageSource::Directory(path) => path.as_os_str().as_encoded_bytes(),
    };
    Sha256::digest(name).iter().take(16).fold(0, |word, byte| word << 8 | u128::from(*byte))
}

fn device(name: &str) -> Result<Device, WorkerError> {
    match Device::open(name) {
        Ok(Some(device)) => Ok(device),
        Ok(None) => Err(package_error(
            "unknown_device",
            format!("no such device: {name}"),
            Some("use auto, cpu or cuda:N"),
        )),
        Err(error) => Err(package_error(error.code(), error.to_string(), Some("use --device cpu"))),
    }
}

/// Keys and values are as exact as the weights that made them: f32 for f32 weights, else bf16.
fn kv_dtype(asked: Option<&str>, weights: &str) -> Result<DType, WorkerError> {
    match asked.unwrap_or(if weights == "f32" { "f32" } else { "bf16" }) {
        "f32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        "f16" => Ok(DType::F16),
        other => Err(package_error(
            "unknown_kv_cache_dtype",
            format!("a KV cache cannot be {other}"),
            Some("use f32, bf16 or f16"),
        )),
    }
}

/// What the KV cache may take of the memory that is free.
fn share(free: Option<u64>, device: &Device) -> u64 {
    let percent = if matches!(device, Device::Cpu) { KV_PERCENT } else { GPU_KV_PERCENT };
    free.map_or(u64::MAX, |free| free / 100 * percent)
}

fn kv_spec(
    spec: &ModelSpec,
    request: &LoadRequest,
    weights: &str,
    share: u64,
) -> Result<KvCacheSpec, WorkerError> {
    let mut kv = KvCacheSpec {
        num_layers: spec.num_layers,
        num_kv_heads: spec.num_kv_heads,
        head_dim: spec.head_dim,
        block_size: BLOCK_SIZE,
        num_blocks: 0,
        dtype: kv_dtype(request.kv_cache_dtype.as_deref(), weights)?,
    };
    let blocks_of_one = spec.max_model_len.div_ceil(BLOCK_SIZE);
    let wanted = blocks_of_one.saturating_mul(request.max_num_seqs as usize);
    let block_bytes = kv.block_bytes().max(1) as u64;
    let blocks = match request.kv_cache_bytes {
        Some(bytes) => (bytes / block_bytes) as usize,
        None => wanted.min((share / block_bytes) as usize),
    };
    if blocks < 2 {
        let message = format!(
            "the KV cache has room for {blocks} blocks of {block_bytes} bytes, at least 2 are needed"
        );
        return Err(package_error("kv_cache_too_small", message, Some("raise --kv-cache-size")));
    }
    // Block 0 is never handed out.
    kv.num_blocks = blocks + 1;
    Ok(kv)
}

fn progress(outbox: &Outbox) -> pinion_loader::ProgressFn {
    let outbox = outbox.clone();
    let last = Mutex::new(None::<Instant>);
    Arc::new(move |progress: Progress| {
        let (stage, done, total) = match progress {
            Progress::Inspecting => (LoadStage::Inspecting, 0, 0),
            Progress::Weights { done, total } => (LoadStage::Weights, done, total),
        };
        let mut last = last.lock();
        let due = last.is_none_or(|last| PROGRESS_EVERY <= last.elapsed()) || done == total;
        if due {
            *last = Some(Instant::now());
            outbox.send(&FromWorker::Loading { stage, done, total });
        }
    })
}

fn broken(error: impl std::fmt::Display) -> WorkerError {
    WorkerError {
        kind: ErrorKind::Internal,
        code: "load_failed".to_owned(),
        message: error.to_string(),
        hint: None,
        param: None,
    }
}
