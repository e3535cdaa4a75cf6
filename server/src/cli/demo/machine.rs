//! What the machine has that matters for serving.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Each thing and what was found of it.
pub(super) fn describe() -> [(&'static str, String); 3] {
    [("CPU", cpu()), ("GPU", gpu()), ("Docker", docker())]
}

fn cpu() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let features = pinion_kernels::cpu::features().join(" ");
    format!("{cpus} usable; {features}; kernels: {}", pinion_kernels::cpu::describe())
}

/// The NVIDIA driver lists its cards here; no library is needed to ask.
fn gpu() -> String {
    let cards = fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count);
    match cards {
        0 => "none".to_owned(),
        1 => "1 NVIDIA card, not used by this build".to_owned(),
        cards => format!("{cards} NVIDIA cards, not used by this build"),
    }
}

fn docker() -> String {
    let socket = Path::new("/var/run/docker.sock");
    let is_socket = fs::metadata(socket).is_ok_and(|data| data.file_type().is_socket());
    if !is_socket {
        return "none".to_owned();
    }
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => "running".to_owned(),
        Err(error) => format!("its socket does not answer: {error}"),
    }
}
