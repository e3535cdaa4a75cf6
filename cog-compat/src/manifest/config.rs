//! The manifest in the form that Cog keeps in an image's label `run.cog.config`.
use serde_json::{Map, Value, json};

use super::{Build, BuildRun, Manifest, Mount, WeightSource, WeightSpec};
use crate::prediction::sorted;

impl Manifest {
    /// Cog's normalised configuration: both spellings of the runner as `predict`, and CUDA 11.8 with cuDNN 8 for a GPU
    /// package that names neither and no framework. CUDA for a framework is left as written.
    pub fn cog_config(&self) -> Value {
        let mut config = Map::new();
        let mut put = |name: &str, value: Value| {
            let empty = match &value {
                Value::Null => true,
                Value::Array(items) => items.is_empty(),
                _ => false,
            };
            if !empty {
                config.insert(name.to_owned(), value);
            }
        };
        put("build", build(&self.build));
        put("image", json!(self.image));
        put("model", json!(self.model));
        put("predict", json!(self.runner()));
        put("train", json!(self.train));
        put(
            "concurrency",
            self.concurrency.as_ref().map_or(Value::Null, |c| json!({"max": c.max})),
        );
        put(
            "environment",
            self.environment.iter().map(|(name, value)| json!(format!("{name}={value}"))).collect(),
        );
        put("weights", self.weights.iter().map(weights).collect());
        sorted(Value::Object(config))
    }
}

fn build(build: &Build) -> Value {
    let names_framework = !build.python_packages.is_empty() || build.python_requirements.is_some();
    let completed = build.gpu && build.cuda.is_none() && !names_framework;
    let cuda = build.cuda.as_deref().or(completed.then_some("11.8"));
    let cudnn = build.cudnn.as_deref().or(completed.then_some("8"));
    let fields = [
        ("python_version", json!(build.python_version)),
        ("gpu", if build.gpu { json!(true) } else { Value::Null }),
        ("cuda", json!(cuda)),
        ("cudnn", json!(cudnn)),
        ("python_requirements", json!(build.python_requirements)),
        ("python_packages", json!(build.python_packages)),
        ("system_packages", json!(build.system_packages)),
        ("run", build.run.iter().map(command).collect()),
        ("pre_install", json!(build.pre_install)),
        ("sdk_version", json!(build.sdk_version)),
    ];
    let given = fields
        .into_iter()
        .filter(|(_, value)| !value.is_null() && value.as_array().is_none_or(|a| !a.is_empty()));
    given.map(|(name, value)| (name.to_owned(), value)).collect()
}

fn command(run: &BuildRun) -> Value {
    if run.mounts.is_empty() {
        return json!({"command": run.command});
    }
    let mount = |m: &Mount| json!({"type": m.kind, "id": m.id, "target": m.target});
    json!({"command": run.command, "mounts": run.mounts.iter().map(mount).collect::<Vec<_>>()})
}

fn weights(spec: &WeightSpec) -> Value {
    let mut sources: Vec<Value> = spec.sources.iter().map(source).collect();
    let source = if sources.len() == 1 { sources.remove(0) } else { Value::Array(sources) };
    json!({"name": spec.name, "source": source, "target": spec.target})
}

fn source(source: &WeightSource) -> Value {
    let mut fields = Map::from_iter([("uri".to_owned(), json!(source.uri))]);
    for (name, patterns) in [("include", &source.include), ("exclude", &source.exclude)] {
        if !patterns.is_empty() {
            fields.insert(name.to_owned(), json!(patterns));
        }
    }
    Value::Object(fields)
}
