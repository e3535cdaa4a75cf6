//! What a worker gives up: it may read its package and its snapshots, write to the one folder that
//! it was given for a new one, and use no other file; open no connection, outlive nobody, and leave
//! no core dump.
//!
//! Landlock does most of it where the kernel has it; an older kernel gets what it can enforce.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::ipc::{LoadRequest, PackageSource};

/// Read besides the package: what the standard library and the device's driver look at.
const READABLE: &[&str] = &["/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/lib64"];

/// Dies with the daemon, and leaves no memory image behind.
pub(super) fn follow_parent() {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        tracing::warn!("the worker may outlive the daemon: {error}");
    }
    limit(Resource::Core, 0);
}

/// Gives up files and network. Call it before threads are started: they inherit it.
pub(super) fn restrict(request: &LoadRequest) {
    match landlock(request) {
        Ok(RulesetStatus::FullyEnforced) => {}
        Ok(status) => tracing::debug!("the sandbox is {status:?} on this kernel"),
        Err(error) => tracing::warn!("the worker runs without a sandbox: {error}"),
    }
}

/// Lets the process allocate `headroom` bytes more than it has now; more fails, and ends it.
pub(super) fn limit_memory(used: u64, headroom: u64) {
    limit(Resource::Data, used.saturating_add(headroom));
}

/// The same for a while: `lift_memory_limit` ends it.
pub(super) fn limit_memory_for_now(used: u64, headroom: u64) {
    let maximum = getrlimit(Resource::Data).maximum;
    set(Resource::Data, Rlimit { current: Some(used.saturating_add(headroom)), maximum });
}

/// Ends `limit_memory_for_now`.
pub(super) fn lift_memory_limit() {
    let maximum = getrlimit(Resource::Data).maximum;
    set(Resource::Data, Rlimit { current: maximum, maximum });
}

fn limit(resource: Resource, bytes: u64) {
    set(resource, Rlimit { current: Some(bytes), maximum: Some(bytes) });
}

fn set(resource: Resource, limit: Rlimit) {
    if let Err(error) = setrlimit(resource, limit) {
        tracing::warn!("{resource:?} is not limited: {error}");
    }
}

fn landlock(request: &LoadRequest) -> Result<RulesetStatus, RulesetError> {
    let abi = ABI::V4;
    let read = AccessFs::from_read(abi);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .create()?;
    let package = match &request.source {
        PackageSource::Directory(path) => Some(path.as_path()),
        PackageSource::Starter => None,
    };
    let snapshots = request.snapshot.restore.as_deref();
    for path in READABLE.iter().map(std::path::Path::new).chain(package).chain(snapshots) {
        // A path that is not there needs no rule.
        if let Ok(fd) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(fd, read))?;
        }
    }
    if let Some(staging) = &request.snapshot.staging
        && let Ok(staging) = PathFd::new(staging)
    {
        let all = AccessFs::from_all(abi) & !AccessFs::Execute;
        rules = rules.add_rule(PathBeneath::new(staging, all))?;
    }
    if let Ok(devices) = PathFd::new("/dev") {
        rules = rules.add_rule(PathBeneath::new(devices, AccessFs::from_all(abi)))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}
