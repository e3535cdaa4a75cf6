//! `pinion check`: everything that `serve` would find out about a package, without serving it.

use std::process::ExitCode;

use pinion_cog_compat::manifest::strict;
use serde_json::json;

use super::local::Local;
use super::{CliError, packages, terminal};
use crate::config::Flags;

/// Checks a package: its cog.yaml, its backend, and that it loads and computes.
///
/// Example: `pinion check ./my-model --strict-cog`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The package directory.
    #[arg(default_value = ".")]
    package: String,
    /// Also check what `cog build` would accept.
    #[arg(long)]
    strict_cog: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let directory = packages::directory(&args.package)?;
    let file = directory.join("cog.yaml");
    let yaml = packages::read_manifest(&file)?;
    let manifest = packages::parse(&yaml, &file.display().to_string())?;
    let text = String::from_utf8_lossy(&yaml);
    for finding in &manifest.notes {
        terminal::note(finding.to_string());
    }
    if args.strict_cog {
        let findings =
            strict::check(&text, &|name| std::fs::read_to_string(directory.join(name)).ok());
        for finding in &findings {
            terminal::note(finding.to_string());
        }
        if findings.iter().any(pinion_cog_compat::Diagnostic::is_error) {
            return Err(CliError::failed("cog build would not accept this cog.yaml"));
        }
    }
    let local = super::serve::runtime()?.block_on(async {
        let local = Local::start(Some(&args.package), &args.flags).await?;
        let found = (local.package.name().to_owned(), local.info.clone());
        local.stop().await;
        Ok::<_, CliError>(found)
    })?;
    let (name, info) = local;
    for warning in &info.warnings {
        terminal::note(format!("warning: {warning}"));
    }
    if args.json {
        let result = json!({
            "package": name, "backend": "native", "architecture": info.architecture,
            "dtype": info.dtype, "num_parameters": info.num_parameters,
            "max_model_len": info.max_model_len, "has_chat_template": info.has_chat_template,
            "warnings": info.warnings,
        });
        terminal::result(result.to_string());
    } else {
        terminal::result(format!(
            "{name} serves: {}, {:.1}M parameters, {}, up to {} tokens{}",
            info.architecture,
            info.num_parameters as f64 / 1e6,
            info.dtype,
            info.max_model_len,
            if info.has_chat_template { "" } else { ", no chat template" },
        ));
    }
    Ok(ExitCode::SUCCESS)
}
