//! How much memory there is, from what the kernel says.

use std::fs;

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
