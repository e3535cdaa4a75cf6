//! Whether `cog build` would accept a `cog.yaml`, as far as the file and its requirements decide; in Cog's own words.
//!
//! The rules are those of Cog 0.22 and 0.23. What needs Cog's table of CUDA images and frameworks is checked as far as
//! a short rule goes: a GPU package must pin its torch, and cuDNN must be of the generation of the CUDA images.
mod cuda;
mod weights;

use std::collections::HashSet;

use super::service::is_variable_name;
use super::{Build, Concurrency, Findings, Manifest, read, root};
use crate::diagnostic::{self, Diagnostic, Mark, Severity};
use crate::yaml::{Node, Value};

/// What `cog build` would say about a `cog.yaml`, by line; without an error among it, the file is accepted.
/// `file` gives the text of a file of the package, by its path in `cog.yaml`.
pub fn check(text: &str, file: &dyn Fn(&str) -> Option<String>) -> Vec<Diagnostic> {
    let (mut found, mut findings) = (Vec::new(), Findings::default());
    if let Some(root) = root(text, &mut found) {
        let manifest = read(&root, &mut findings);
        found.extend(findings.types.into_iter().filter(|fault| !fault.path.starts_with("pinion")));
        match manifest {
            Some(manifest) => {
                Strict { root: &root, manifest: &manifest, file, found: &mut found }.check();
            }
            None => found = findings.all,
        }
    }
    diagnostic::arrange(&mut found);
    found
}

struct Strict<'s> {
    root: &'s Node,
    manifest: &'s Manifest,
    file: &'s dyn Fn(&str) -> Option<String>,
    found: &'s mut Vec<Diagnostic>,
}

impl Strict<'_> {
    fn check(&mut self) {
        self.runner();
        self.images();
        self.build();
        self.concurrency();
        self.environment();
        self.observability();
        self.weights();
        self.deprecated();
    }

    /// Whether a field is given and not null.
    fn is_given(&self, path: &str) -> bool {
        find(self.root, path).is_some_and(|node| !matches!(node.value, Value::Null))
    }

    fn push(&mut self, severity: Severity, path: &str, message: String) {
        let at = mark_of(self.root, path);
        self.found.push(Diagnostic::new(severity, at, path, message));
    }

    fn error(&mut self, path: &str, message: String) {
        self.push(Severity::Error, path, message);
    }

    /// `invalid PATH "VALUE": MESSAGE`
    fn invalid(&mut self, path: &str, value: &str, message: &str) {
        self.error(path, format!("invalid {path} \"{value}\": {message}"));
    }

    /// `schema error in "PATH": MESSAGE`
    fn schema(&mut self, path: &str, message: &str) {
        let field = if path.is_empty() { "cog.yaml" } else { path };
        self.error(
            path,
            format!("schema error in \"{}\": {message}", field.replace('[', ".").replace(']', "")),
        );
    }

    fn runner(&mut self) {
        let Manifest { run, predict, train, .. } = self.manifest;
        if run.is_some() && predict.is_some() {
            self.schema("", "Must not validate the schema (not)");
        }
        for (path, value, form) in [
            ("run", run, "must be in the form 'run.py:Runner'"),
            ("predict", predict, "must be in the form 'run.py:Runner'"),
            ("train", train, "must be in the form 'train.py:Trainer'"),
        ] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty())
                && value.matches(".py:").count() != 1
            {
                self.invalid(path, value, form);
            }
        }
    }

    fn images(&mut self) {
        let Manifest { image, model, .. } = self.manifest;
        let given =
            |field: &Option<String>| field.as_deref().is_some_and(|value| !value.is_empty());
        if given(image) && given(model) {
            self.error("model", "only one of image or model can be set, not both".to_owned());
        }
        if let Some(model) = model.as_deref() {
            let name = model.rsplit('/').next().unwrap_or_default();
            if model.contains('@') || name.contains(':') {
                self.invalid("model", model, "must be a bare repository, without tag or digest");
            }
        }
    }

    fn build(&mut self) {
        if !self.is_given("build") {
            return;
        }
        let Build { python_version, python_requirements, python_packages, cuda, .. } =
            &self.manifest.build;
        match python_version.as_deref().filter(|version| !version.is_empty()) {
            None => self.error("build.python_version", "python_version is required".to_owned()),
            Some(version) => {
                if let Some(message) = python_fault(version) {
                    self.invalid("build.python_version", version.trim(), message);
                }
            }
        }
        if let Some(path) = python_requirements.as_deref().filter(|path| !path.is_empty()) {
            if !python_packages.is_empty() {
                let message =
                    "only one of python_packages or python_requirements can be set, not both";
                self.error("build", format!("invalid build: {message}"));
            }
            if (self.file)(path).is_none() {
                self.invalid("build.python_requirements", path, "file does not exist");
            }
        }
        if let Some(version) = cuda.as_deref().filter(|version| !version.is_empty())
            && let Some(message) = cuda::version_fault(version)
        {
            self.invalid("build.cuda", version, message);
        }
        self.commands();
        self.sdk_version();
        self.gpu();
    }

    /// A plain `3.10` is a number for go-yaml, and a command is no number.
    fn commands(&mut self) {
        let Some(Node { value: Value::Seq(items), .. }) = find(self.root, "build.run") else {
            return;
        };
        for (index, item) in items.iter().enumerate() {
            let Value::Scalar(scalar) = &item.value else { continue };
            if scalar.plain
                && (scalar.float().is_some()
                    || matches!(item.to_json(), serde_json::Value::Bool(_)))
            {
                let message = format!("a command must be a string, not {}", item.kind());
                self.error(&format!("build.run[{index}]"), message);
            }
        }
    }

    fn sdk_version(&mut self) {
        let Some(version) = self.manifest.build.sdk_version.as_deref() else { return };
        let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok());
        let mut parts = version.split('.');
        match (number(parts.next()), number(parts.next())) {
            (Some(0), Some(minor)) if minor < 16 => {
                self.invalid(
                    "build.sdk_version",
                    version,
                    "minimum supported SDK version is 0.16.0",
                );
            }
            (Some(_), _) => {}
            _ if version == "prerelease" => {}
            _ => self.invalid("build.sdk_version", version, "must be a version or 'prerelease'"),
        }
    }

    fn concurrency(&mut self) {
        let path = "concurrency";
        if let Some(Node { value: Value::Scalar(scalar), .. }) = find(self.root, path) {
            self.error(path, format!("must be a mapping, not {}", scalar.text));
            return;
        }
        let Some(Concurrency { .. }) = self.manifest.concurrency else { return };
        let Some(Node { value: Value::Scalar(max), .. }) = find(self.root, "concurrency.max")
        else {
            return self.schema(path, "max is required");
        };
        let Some(max) = max.integer() else { return };
        let old = self.manifest.build.python_version.as_deref().and_then(python_version);
        let value = max.to_string();
        if max < 1 {
            self.invalid("concurrency.max", &value, "must be at least 1");
        } else if max > 1 && old.is_some_and(|(major, minor)| major == 3 && minor < 11) {
            self.invalid("concurrency.max", &value, "concurrency requires Python 3.11 or higher");
        }
    }

    fn environment(&mut self) {
        let items = match find(self.root, "environment").map(|node| &node.value) {
            Some(Value::Map(_)) => {
                return self.error("environment", "must be a list, not a mapping".to_owned());
            }
            Some(Value::Seq(items)) => items.clone(),
            _ => return,
        };
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("environment[{index}]");
            let text = match &item.value {
                Value::Scalar(scalar) => &*scalar.text,
                _ => "",
            };
            match text.split_once('=').filter(|(name, _)| is_variable_name(name)) {
                None => self.schema(&path, "Does not match pattern '^[A-Za-z_][A-Za-z0-9_]*=.*$'"),
                Some((name, _)) if is_reserved(name) => self.error(
                    &path,
                    format!(
                        "invalid environment: environment variable \"{name}\" is not allowed: reserved for internal use"
                    ),
                ),
                Some((name, _)) => {
                    if !seen.insert(name.to_owned()) {
                        let message = format!("invalid environment: duplicate environment variable \"{name}\"");
                        self.error(&path, message);
                    }
                }
            }
        }
    }

    fn observability(&mut self) {
        let Some(observability) = &self.manifest.observability else { return };
        if observability.traces.is_some() && !self.is_given("observability.traces.enabled") {
            self.schema("observability.traces", "enabled is required");
        }
        if observability.config.is_some()
            && !observability.traces.as_ref().is_some_and(|traces| traces.enabled)
        {
            self.error(
                "observability.config",
                "observability.config needs observability.traces.enabled".to_owned(),
            );
        }
    }

    fn deprecated(&mut self) {
        let build = &self.manifest.build;
        for (path, given, new) in [
            (
                "predict",
                self.manifest.predict.as_deref().is_some_and(|name| !name.is_empty()),
                "run",
            ),
            (
                "build.python_packages",
                !build.python_packages.is_empty(),
                "build.python_requirements",
            ),
            ("build.pre_install", !build.pre_install.is_empty(), "build.run"),
        ] {
            if given {
                let message = format!("deprecated field \"{path}\": use \"{new}\" instead");
                self.push(Severity::Warning, path, message);
            }
        }
    }
}

/// Major and minor version, if both are numbers.
fn python_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim().splitn(3, '.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn python_fault(version: &str) -> Option<&'static str> {
    if !version.contains('.') {
        return Some("must include major and minor version (e.g., '3.11')");
    }
    match python_version(version) {
        None => Some("invalid major or minor version number"),
        Some(version) if version < (3, 10) => Some("minimum supported Python version is 3.10"),
        Some(_) => None,
    }
}

/// Environment variables that Cog keeps for itself, some by prefix.
fn is_reserved(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "PATH",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "PYTHONUNBUFFERED",
        "LIBRARY_PATH",
        "HF_ENDPOINT",
        "HF_HUB_ENABLE_HF_TRANSFER",
    ];
    const PREFIXES: [&str; 10] = [
        "R8_",
        "REPLICATE_",
        "CUDA_",
        "NVIDIA_",
        "NV_",
        "PGET_",
        "KUBERNETES_",
        "COG_OBSERVABILITY_",
        "COG_TRACE_",
        "OTEL_",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The node of a path such as `weights[0].source.uri`.
fn find<'n>(root: &'n Node, path: &str) -> Option<&'n Node> {
    let parts = path
        .split(['.', '['])
        .map(|part| part.trim_end_matches(']'))
        .filter(|part| !part.is_empty());
    parts.into_iter().try_fold(root, |node, part| match &node.value {
        Value::Map(entries) => {
            entries.iter().find(|entry| &*entry.key == part).map(|entry| &entry.value)
        }
        Value::Seq(items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Where a path is, or where the nearest thing around it is.
fn mark_of(root: &Node, path: &str) -> Mark {
    let mut path = path;
    loop {
        if let Some(node) = find(root, path) {
            return node.mark;
        }
        path = path.rsplit_once(['.', '[']).map_or("", |(before, _)| before);
    }
}
