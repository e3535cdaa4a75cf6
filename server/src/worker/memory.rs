//! How much memory there is, from what the kernel says.

use std::fs;
use std::path::Path;

use crate::ipc::PackageSource;

/// Directories below a package that are looked into.
const MAX_DEPTH: usize = 4;
/// Entries of a directory that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// Bytes that the process could allocate without swapping: the smaller of what the machine and
/// what the control group leave. None where the kernel does not say.
pub(super) fn available_bytes() -> Option<u64> {
    let machine = field("/proc/meminfo", "MemAvailable:").map(|kib| kib * 1024);
    let group = control_group();
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

/// Bytes of private writable memory of this process, which is what `RLIMIT_DATA` counts.
pub(super) fn data_bytes() -> Option<u64> {
    field("/proc/self/status", "VmData:").map(|kib| kib * 1024)
}

/// Bytes that loading a package may take: its files, read and converted to twice their size.
pub(super) fn loading_bytes(source: &PackageSource) -> u64 {
    match source {
        PackageSource::Starter => 0,
        PackageSource::Directory(directory) => {
            directory_bytes(directory, MAX_DEPTH).saturating_mul(3)
        }
    }
}

/// Bytes of the regular files below a directory, not following links.
fn directory_bytes(directory: &Path, depth: usize) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let sizes = entries.take(MAX_ENTRIES).filter_map(|entry| {
        let entry = entry.ok()?;
        let data = entry.metadata().ok()?;
        match data.is_dir() {
            true if 0 < depth => Some(directory_bytes(&entry.path(), depth - 1)),
            _ if data.is_file() => Some(data.len()),
            _ => None,
        }
    });
    sizes.fold(0, u64::saturating_add)
}

fn field(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What a version 2 control group leaves; none without a limit.
fn control_group() -> Option<u64> {
    let path = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = path.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned();
    let read = |name: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/fs/cgroup{path}/{name}")).ok()?.trim().parse().ok()
    };
    Some(read("memory.max")?.saturating_sub(read("memory.current")?))
}
