//! Compiles `cuda/*.cu` into one fat binary each when the feature `cuda` is on: machine code for the named GPUs, and PTX
//! for later ones. Nothing but nvcc is needed: no driver, no GPU.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, io};

/// `90a` is machine code for one GPU; `80+` is PTX, which the driver compiles where there is no machine code.
const TARGETS: &str = "90a 80+";

#[expect(clippy::disallowed_methods, reason = "cargo tells build scripts through variables")]
fn main() -> ExitCode {
    for trigger in ["rerun-if-changed=build.rs", "rerun-if-changed=cuda"] {
        println!("cargo:{trigger}");
    }
    for variable in ["NVCC", "PINION_CUDA_TARGETS"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return ExitCode::SUCCESS;
    }
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else { return ExitCode::FAILURE };
    let nvcc = env::var("NVCC").unwrap_or_else(|_| "nvcc".into());
    let targets = env::var("PINION_CUDA_TARGETS").unwrap_or_else(|_| TARGETS.into());
    match compile(&out, &nvcc, &targets) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo:error=cannot compile the CUDA kernels with `{nvcc}`: {error}");
            println!("cargo:error=`eval \"$(scripts/cuda/setup.sh DIR)\"` brings a compiler");
            ExitCode::FAILURE
        }
    }
}

fn compile(out: &Path, nvcc: &str, targets: &str) -> io::Result<()> {
    let mut sources = Vec::new();
    for entry in fs::read_dir("cuda")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            sources.push(path);
        }
    }
    sources.sort();
    let mut table = String::from("&[\n");
    for source in sources {
        let binary = out.join(source.file_name().unwrap_or_default()).with_extension("fatbin");
        let mut command = Command::new(nvcc);
        command.args(["-fatbin", "-O3", "-std=c++17", "-fmad=false", "--compress-mode=size"]);
        for target in targets.split_whitespace() {
            command.arg(match target.strip_suffix('+') {
                Some(least) => format!("-gencode=arch=compute_{least},code=compute_{least}"),
                None => format!("-gencode=arch=compute_{target},code=sm_{target}"),
            });
        }
        let status = command.arg("-o").arg(&binary).arg(&source).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("{} on {}", status, source.display())));
        }
        let binary = binary.display().to_string();
        table.extend(["    include_bytes!(", &format!("{binary:?}"), "),\n"]);
    }
    table += "]\n";
    fs::write(out.join("modules.rs"), table)
}
