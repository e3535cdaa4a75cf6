//! From flags, environment and file to a `Config`, all errors at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::settings::{Flags, SETTINGS};
use super::{
    Config, JournalConfig, ServeConfig, SnapshotConfig, SnapshotMode, WorkerConfig, value,
};
use crate::ipc::Verify;

/// Beyond it a guess is hardly ever right to its end.
pub(crate) const MAX_SPECULATIVE_TOKENS: u32 = 32;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--name`.
    Flag,
    /// `PINION_NAME`.
    Variable,
    /// A `pinion.toml`.
    File(PathBuf),
    /// Nobody said otherwise.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable => f.write_str("environment"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The value does not read.
    #[error("setting `{name}` (from {origin}): {reason}: {value}")]
    Value {
        /// Which.
        name: &'static str,
        /// From where.
        origin: Origin,
        /// What is expected.
        reason: String,
        /// What is there.
        value: String,
    },
    /// The file does not read.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file has a key that is no setting.
    #[error("{}: no such setting: {key}", path.display())]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
    },
    /// Anybody could use the node.
    #[error(
        "refusing to listen on {listen} without a key; hint: set --api-key or PINION_API_KEY, or \
         pass --insecure"
    )]
    Open {
        /// Where.
        listen: String,
    },
}

/// Each setting's text and where it came from.
#[derive(Clone, Debug)]
pub struct Resolved(BTreeMap<&'static str, (String, Origin)>);

/// Puts the sources together. `env` reads one variable.
pub fn resolve(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
    file: Option<&Path>,
) -> Result<Resolved, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let from_file = file.map(|path| (path, read_file(path, &mut errors)));
    let mut resolved = BTreeMap::new();
    for setting in SETTINGS {
        let flag = flags.0.iter().find(|(name, _)| *name == setting.name);
        let value = flag
            .map(|(_, value)| (value.clone(), Origin::Flag))
            .or_else(|| Some((env(&setting.variable())?, Origin::Variable)))
            .or_else(|| {
                let (path, values) = from_file.as_ref()?;
                Some((values.get(setting.name)?.clone(), Origin::File(path.to_path_buf())))
            })
            .unwrap_or_else(|| (setting.default.to_owned(), Origin::Default));
        resolved.insert(setting.name, value);
    }
    if errors.is_empty() { Ok(Resolved(resolved)) } else { Err(errors) }
}

fn read_file(path: &Path, errors: &mut Vec<ConfigError>) -> BTreeMap<String, String> {
    let table = std::fs::read_to_string(path)
        .map_err(|e| e.to_string())
        .and_then(|text| text.parse::<toml::Table>().map_err(|e| e.to_string()));
    let table = table.unwrap_or_else(|reason| {
        errors.push(ConfigError::File { path: path.to_path_buf(), reason });
        toml::Table::new()
    });
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let name = key.replace('_', "-");
        if SETTINGS.iter().any(|setting| setting.name == name) {
            values.insert(name, text_of(&value));
        } else {
            errors.push(ConfigError::UnknownKey { path: path.to_path_buf(), key });
        }
    }
    values
}

fn text_of(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(","),
        toml::Value::Table(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{key}={}", text_of(value)));
            pairs.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

impl Resolved {
    /// Name, shown value and origin of each setting.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, String, &Origin)> {
        SETTINGS.iter().map(|setting| {
            let (value, origin) = &self.0[setting.name];
            let hidden = setting.is_secret() && !value.is_empty();
            (setting.name, if hidden { "(set)".to_owned() } else { value.clone() }, origin)
        })
    }

    /// Whether somebody said what a setting is.
    pub fn is_given(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|(_, origin)| *origin != Origin::Default)
    }

    /// The typed configuration, or every setting that does not read.
    pub fn typed(&self) -> Result<Config, Vec<ConfigError>> {
        let mut reader = Reader { resolved: self, errors: Vec::new() };
        let config = reader.config();
        match config {
            Some(config) if reader.errors.is_empty() => Ok(config),
            _ => Err(reader.errors),
        }
    }
}

struct Reader<'a> {
    resolved: &'a Resolved,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    /// None if any setting failed; then `errors` says which.
    fn config(&mut self) -> Option<Config> {
        let worker = WorkerConfig {
            device: self.text("device")?,
            backend: self.optional("backend", |text| Ok(text.to_owned())),
            dtype: self.optional("dtype", |text| Ok(text.to_owned())),
            max_model_len: self.optional("max-model-len", value::count),
            max_num_seqs: self.optional("max-num-seqs", value::count),
            max_num_batched_tokens: self.required("max-num-batched-tokens", value::count)?,
            max_queue: self.required("max-queue", value::count)?,
            class_shares: self.required("class-shares", value::class_shares)?,
            kv_cache_bytes: self.optional("kv-cache-size", value::bytes),
            kv_cache_dtype: self.optional("kv-cache-dtype", |text| {
                let known = matches!(text, "f32" | "bf16" | "f16");
                known.then(|| text.to_owned()).ok_or_else(|| "expected f32, bf16 or f16".to_owned())
            }),
            threads: self.optional("threads", value::count),
            prefix_cache: self.required("prefix-cache", value::switch)?,
            speculative_tokens: self
                .optional("speculative-tokens", value::up_to::<MAX_SPECULATIVE_TOKENS>),
            snapshots: self.snapshots()?,
            memory_headroom_bytes: self.required("worker-headroom", value::bytes)?,
            hang_timeout: self.required("hang-timeout", value::time)?,
            step_timeout: self.required("step-timeout", value::time)?,
            render_timeout: self.required("render-timeout", value::time)?,
        };
        let keys = self.optional("api-key", |text| Ok(text.to_owned())).unwrap_or_default();
        let writes_streams = self.required("stream-journal", value::switch)?;
        let stream_disk = self.required("stream-disk", value::bytes)?;
        let serve = ServeConfig {
            listen: self.required("listen", |text| {
                text.parse()
                    .map_err(|_e| "expected an address and port such as 127.0.0.1:8080".to_owned())
            })?,
            api_keys: keys.split(',').filter(|key| !key.is_empty()).map(str::to_owned).collect(),
            max_body_bytes: self.required("max-body-size", value::bytes)? as usize,
            drain_timeout: self.required("drain-timeout", value::time)?,
            heartbeat: self.required("heartbeat", value::time)?,
            node_name: self.optional("node-name", value::label).unwrap_or_else(value::host_label),
            on_disconnect: self.required("on-disconnect", |text| {
                text.parse().map_err(|()| "expected linger, cancel or complete".to_owned())
            })?,
            linger: self.required("linger", value::time)?,
            stream_ttl: self.required("stream-ttl", value::time)?,
            stream_memory_bytes: self.required("stream-memory", value::bytes)? as usize,
            journal: self.journal(stream_disk).filter(|_| writes_streams),
            webhook_token: self.optional("webhook-token", |text| Ok(text.to_owned())),
            allow_private_webhooks: self.required("allow-private-webhooks", value::switch)?,
        };
        let insecure = self.required("insecure", value::switch)?;
        if !serve.listen.ip().is_loopback() && serve.api_keys.is_empty() && !insecure {
            self.errors.push(ConfigError::Open { listen: serve.listen.to_string() });
        }
        Some(Config { serve, worker })
    }

    fn snapshots(&mut self) -> Option<SnapshotConfig> {
        let directory = self.optional("snapshot-dir", |text| Ok(PathBuf::from(text)));
        Some(SnapshotConfig {
            mode: self.required("snapshots", |text| match text {
                "auto" => Ok(SnapshotMode::Auto),
                "on" => Ok(SnapshotMode::On),
                "off" => Ok(SnapshotMode::Off),
                _ => Err("expected auto, on or off".to_owned()),
            })?,
            directory: directory.or_else(|| Some(super::data_directory()?.join("snapshots"))),
            limit: self.required("snapshot-limit", value::bytes)?,
            verify: self.required("snapshot-verify", |text| match text {
                "background" => Ok(Verify::Background),
                "full" => Ok(Verify::Full),
                "off" => Ok(Verify::Off),
                _ => Err("expected background, full or off".to_owned()),
            })?,
            write: true,
        })
    }

    fn journal(&mut self, bytes: u64) -> Option<JournalConfig> {
        let directory = self.optional("stream-dir", |text| Ok(PathBuf::from(text)));
        let directory = directory.or_else(|| Some(super::data_directory()?.join("streams")))?;
        Some(JournalConfig { directory, bytes })
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        self.required(name, |text| Ok(text.to_owned()))
    }

    fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.resolved.0[name].0.trim().is_empty() {
            return None;
        }
        self.required(name, read)
    }

    fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (value, origin) = &self.resolved.0[name];
        match read(value) {
            Ok(read) => Some(read),
            Err(reason) => {
                let (origin, value) = (origin.clone(), value.clone());
                self.errors.push(ConfigError::Value { name, origin, reason, value });
                None
            }
        }
    }
}
