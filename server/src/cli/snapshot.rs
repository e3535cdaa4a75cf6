//! `pinion snapshot`: write the snapshot of a package, and look at those there are.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use pinion_loader::snapshot::{Identity, Listed, Snapshot, SnapshotError, Store};
use serde_json::json;

use super::local::Local;
use super::{CliError, packages, terminal};
use crate::config::{Flags, SnapshotMode, WorkerConfig};
use crate::supervisor::SnapshotState;

/// Writes the snapshot of a package, from which it then starts without converting anything.
///
/// Example: `pinion snapshot ./my-model --dtype q4_k`
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Args {
    /// The package directory; with --inspect and --verify also the folder of a snapshot.
    #[arg(required_unless_present = "list")]
    package: Option<String>,
    /// List all snapshots, the least recently used first.
    #[arg(long, conflicts_with_all = ["package", "inspect", "verify"])]
    list: bool,
    /// Show what the snapshots of the package are of and for.
    #[arg(long, conflicts_with = "verify")]
    inspect: bool,
    /// Compare every byte of the package's snapshots with its digest.
    #[arg(long)]
    verify: bool,
    /// Print results as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let resolved = super::serve::resolve(&args.flags, None)?;
    let mut config = super::serve::typed(&resolved)?.worker;
    config.snapshots.mode = SnapshotMode::On;
    let Some(package) = &args.package else {
        list(&packages::open_store(&config.snapshots)?, args.json)?;
        return Ok(ExitCode::SUCCESS);
    };
    if args.inspect || args.verify {
        let store = packages::open_store(&config.snapshots)?;
        let found = find(&store, package)?;
        return if args.verify { verify(&found) } else { inspect(&found, args.json) };
    }
    super::serve::runtime()?.block_on(write(package, &config, args.json))
}

/// Loads the package and waits until its snapshot is on disk.
async fn write(package: &str, config: &WorkerConfig, json: bool) -> Result<ExitCode, CliError> {
    let started = Instant::now();
    let local = Local::start_with(Some(package), config).await?;
    let mut states = local.package.watch_snapshot();
    let bar = terminal::progress(0, "bytes written");
    let (path, bytes, written) = loop {
        let state = states.borrow_and_update().clone();
        match state {
            SnapshotState::Unknown => {}
            SnapshotState::Writing { done, total } => {
                bar.set_length(total);
                bar.set_position(done);
            }
            SnapshotState::There { path } => break (path, 0, false),
            SnapshotState::Published { path, bytes } => break (path, bytes, true),
            SnapshotState::Failed { reason } => return Err(CliError::failed(reason)),
        }
        if states.changed().await.is_err() {
            return Err(CliError::failed("the worker ended before the snapshot was written"));
        }
    };
    bar.finish_and_clear();
    local.stop().await;
    let shown = path.display();
    if json {
        let millis = started.elapsed().as_millis() as u64;
        let result = json!({"path": path, "bytes": bytes, "written": written, "millis": millis});
        terminal::result(result.to_string());
    } else if written {
        let seconds = started.elapsed().as_secs_f64();
        terminal::result(format!("written in {seconds:.1} s: {}: {shown}", megabytes(bytes)));
    } else {
        terminal::result(format!("there is one already: {shown}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn list(store: &Store, json: bool) -> Result<(), CliError> {
    let all = store.list().map_err(|e| failed(&e))?;
    if all.is_empty() && !json {
        terminal::note(format!("no snapshots in {}", store.root().display()));
    }
    for listed in all {
        terminal::result(if json { line_json(&listed) } else { line(&listed) });
    }
    Ok(())
}

fn line(listed: &Listed) -> String {
    let what = match &listed.manifest {
        Ok(manifest) => format!(
            "{} {} {} {}",
            manifest.notes.architecture,
            manifest.notes.dtype,
            manifest.target.device,
            manifest.target.kernels
        ),
        Err(error) => format!("unusable: {error}"),
    };
    let age = SystemTime::now().duration_since(listed.used).map_or(0, |age| age.as_secs());
    let (package, bytes) = (&listed.package[..listed.package.len().min(12)], listed.bytes);
    format!("{package}  {}  used {age} s ago  {what}  {}", megabytes(bytes), listed.path.display())
}

fn line_json(listed: &Listed) -> String {
    let used = listed.used.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |used| used.as_secs());
    let (package, target, path) = (&listed.package, &listed.target, &listed.path);
    let mut value = json!({
        "package": package, "target": target, "path": path, "bytes": listed.bytes,
        "used_unix_seconds": used,
    });
    match &listed.manifest {
        Ok(manifest) => value["manifest"] = json!(manifest),
        Err(error) => value["error"] = json!(error.to_string()),
    }
    value.to_string()
}

/// The snapshots of a package, or the one in a folder.
fn find(store: &Store, package: &str) -> Result<Vec<Arc<Snapshot>>, CliError> {
    let path = Path::new(package);
    if path.join("manifest.json").is_file() {
        let path = path.canonicalize().map_err(|e| CliError::failed(e.to_string()))?;
        return Ok(vec![Snapshot::inspect(&path).map_err(|e| failed(&e))?]);
    }
    let directory = packages::directory(package)?;
    let identity = Identity::of(&directory).map_err(|e| failed(&e))?;
    let digest = store.identify(&identity).map_err(|e| failed(&e))?;
    let all = store.list().map_err(|e| failed(&e))?;
    let own = all.into_iter().filter(|listed| listed.package == digest);
    let found: Vec<_> = own
        .map(|listed| Snapshot::inspect(&listed.path).map_err(|e| failed(&e)))
        .collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Err(CliError::not_found(format!("the package has no snapshot: {package}"))
            .hint("write one with `pinion snapshot PACKAGE`, or serve the package"));
    }
    Ok(found)
}

fn inspect(found: &[Arc<Snapshot>], json: bool) -> Result<ExitCode, CliError> {
    for snapshot in found {
        let manifest = snapshot.manifest();
        let text = if json {
            serde_json::to_string(manifest)
        } else {
            serde_json::to_string_pretty(manifest)
        };
        terminal::result(text.map_err(|e| CliError::failed(e.to_string()))?);
        if !json {
            let (tensors, chunks) = (snapshot.index().tensors.len(), snapshot.num_chunks());
            let path = snapshot.path().display();
            terminal::note(format!("{tensors} tensors in {chunks} chunks: {path}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(found: &[Arc<Snapshot>]) -> Result<ExitCode, CliError> {
    for snapshot in found {
        let bar = terminal::progress(0, "bytes compared");
        let compared = snapshot.verify(&mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let shown = snapshot.path().display();
        compared.map_err(|error| {
            CliError::failed(format!("{error}: {shown}"))
                .hint("remove its folder; the next start writes it again")
        })?;
        terminal::result(format!("whole: {}: {shown}", megabytes(snapshot.manifest().image_bytes)));
    }
    Ok(ExitCode::SUCCESS)
}

fn failed(error: &SnapshotError) -> CliError {
    CliError::failed(error.to_string())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
