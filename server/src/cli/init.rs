//! `pinion init`: a package to start from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{CliError, terminal};

/// Makes a package directory with a cog.yaml that says what goes where.
///
/// Example: `pinion init ./my-model`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where; made if it is not there.
    #[arg(default_value = ".")]
    directory: PathBuf,
}

const COG_YAML: &str = "\
# A package that pinion serves natively: weights and no code. Cog reads the same file.
build:
  python_version: \"3.12\"
  gpu: false

# Put config.json, *.safetensors, tokenizer.json and tokenizer_config.json of a Hugging Face model
# into weights/, then run: pinion check . && pinion serve .

# pinion:                     # all optional
#   dtype: bf16               # f32 | bf16; default: as the weights are
#   max_model_len: 8192
#   max_num_seqs: 64
#   inputs: {max_tokens: [max_length]}
";

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let directory = &args.directory;
    let manifest = directory.join("cog.yaml");
    if manifest.exists() {
        return Err(CliError::failed(format!("it is there already: {}", manifest.display()))
            .hint("run `pinion check` on it"));
    }
    make(&directory.join("weights"), |path| fs::create_dir_all(path))?;
    make(&manifest, |path| fs::write(path, COG_YAML))?;
    terminal::note(format!("wrote {}", manifest.display()));
    terminal::note(format!(
        "next: put the weights into {}, then `pinion check {}`",
        directory.join("weights").display(),
        directory.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn make(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), CliError> {
    write(path).map_err(|e| CliError::failed(format!("{}: {e}", path.display())))
}
