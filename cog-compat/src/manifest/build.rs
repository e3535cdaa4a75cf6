//! The `build:` block: how Cog makes the image of a package.
use super::read::{Field, Fields, Findings};
use crate::diagnostic::Diagnostic;
use crate::yaml::Value;

/// How the image of a container package is built. Everything is as written; `cog build` fills in what is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Build {
    /// Python version, such as `3.12`.
    pub python_version: Option<String>,
    /// Whether the image needs a GPU.
    pub gpu: bool,
    /// CUDA version, such as `12.4`.
    pub cuda: Option<String>,
    /// cuDNN version, such as `9`.
    pub cudnn: Option<String>,
    /// Path of a requirements file in the package.
    pub python_requirements: Option<String>,
    /// Requirements given in place (deprecated by Cog).
    pub python_packages: Vec<String>,
    /// Debian packages.
    pub system_packages: Vec<String>,
    /// Commands run after the installation.
    pub run: Vec<BuildRun>,
    /// Commands run before the installation of Python packages (deprecated by Cog).
    pub pre_install: Vec<String>,
    /// Version of Cog's Python SDK.
    pub sdk_version: Option<String>,
}

/// One command of `build.run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRun {
    /// The shell command.
    pub command: String,
    /// What is mounted while it runs.
    pub mounts: Vec<Mount>,
}

/// A secret mounted during one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The kind of mount; Cog knows `secret`.
    pub kind: String,
    /// The id under which the builder knows the secret.
    pub id: String,
    /// Where it appears in the build.
    pub target: String,
}

pub(super) fn read(field: &Field<'_>, out: &mut Findings) -> Build {
    let Some(mut fields) = Fields::of(field, out) else { return Build::default() };
    let mut text = |name, out: &mut Findings| fields.take(name).and_then(|field| field.text(out));
    let python_version = text("python_version", out);
    let (cuda, cudnn) = (text("cuda", out), text("cudnn", out));
    let (python_requirements, sdk_version) =
        (text("python_requirements", out), text("sdk_version", out));
    let mut texts = |name, out: &mut Findings| {
        fields.take(name).map(|field| field.texts(out)).unwrap_or_default()
    };
    let (python_packages, system_packages) =
        (texts("python_packages", out), texts("system_packages", out));
    let pre_install = texts("pre_install", out);
    let gpu = fields.take("gpu").and_then(|field| field.boolean(out)).unwrap_or_default();
    let run = fields.take("run").and_then(|field| field.items(out)).unwrap_or_default();
    let run = run.iter().filter_map(|item| command(item, out)).collect();
    super::note_unknown(&fields, out);
    Build {
        python_version,
        gpu,
        cuda,
        cudnn,
        python_requirements,
        python_packages,
        system_packages,
        run,
        pre_install,
        sdk_version,
    }
}

fn command(item: &Field<'_>, out: &mut Findings) -> Option<BuildRun> {
    if let Value::Scalar(_) = item.node.value {
        return Some(BuildRun { command: item.text(out)?, mounts: Vec::new() });
    }
    let mut fields = Fields::of(item, out)?;
    let command = fields.take("command").and_then(|field| field.text(out));
    let mounts = fields.take("mounts").and_then(|field| field.items(out)).unwrap_or_default();
    let mounts = mounts.iter().filter_map(|item| mount(item, out)).collect();
    super::note_unknown(&fields, out);
    if command.is_none() {
        out.push(Diagnostic::error(fields.mark, &fields.path_of("command"), "missing"));
    }
    Some(BuildRun { command: command?, mounts })
}

fn mount(item: &Field<'_>, out: &mut Findings) -> Option<Mount> {
    let mut fields = Fields::of(item, out)?;
    let mut text = |name, out: &mut Findings| fields.take(name).and_then(|field| field.text(out));
    let (kind, id, target) = (text("type", out), text("id", out), text("target", out));
    super::note_unknown(&fields, out);
    for (name, value) in [("type", &kind), ("id", &id), ("target", &target)] {
        if value.is_none() {
            out.push(Diagnostic::error(fields.mark, &fields.path_of(name), "missing"));
        }
    }
    Some(Mount { kind: kind?, id: id?, target: target? })
}
