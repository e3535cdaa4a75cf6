//! Every setting once: its name is its flag, its key in `pinion.toml`, and its variable.

use clap::{Arg, ArgAction, ArgMatches, Command};

/// One setting, as text.
#[derive(Debug)]
pub struct Setting {
    /// Flag without dashes, and key in `pinion.toml` (`-` or `_`).
    pub name: &'static str,
    /// Value in help texts; empty for switches.
    pub value: &'static str,
    /// Used when nobody says otherwise; empty means that the package or the machine decides.
    pub default: &'static str,
    /// For `--help` and the reference.
    pub help: &'static str,
}

/// The whole configuration; code, help, documentation and `--print-config` read it here.
pub const SETTINGS: &[Setting] = &[
    setting("listen", "ADDR:PORT", "127.0.0.1:8080", "Where to listen; port 0 takes a free one"),
    setting("api-key", "KEY[,KEY]", "", "Keys that clients must present"),
    setting("insecure", "", "false", "Listen beyond loopback without a key"),
    setting("backend", "NAME", "", "native, container or process instead of the package's choice"),
    setting("device", "DEVICE", "auto", "auto, cpu or cuda:N"),
    setting(
        "dtype",
        "TYPE",
        "",
        "Weight type: f32, bf16, q8_0, q6_k, q5_k, q4_k or q4_0 [default: the package's own]",
    ),
    setting("max-model-len", "TOKENS", "", "Longest sequence [default: the model's]"),
    setting(
        "max-num-seqs",
        "COUNT",
        "",
        "Sequences that run at once [default: the package's, then 64]",
    ),
    setting("max-num-batched-tokens", "TOKENS", "2048", "Tokens of one step"),
    setting("max-queue", "COUNT", "256", "Generations that may wait; further ones get 429"),
    setting(
        "class-shares",
        "CLASS=PERCENT,…",
        "latency=25,compliance=15,default=25,reasoning=10",
        "Percent of each step's tokens, of the KV cache and of the running sequences that are kept \
         for a route class; what it leaves is lent, and classes that are not named keep nothing",
    ),
    setting("kv-cache-size", "BYTES", "", "Size of the KV cache [default: from free memory]"),
    setting(
        "kv-cache-dtype",
        "TYPE",
        "",
        "Type of keys and values: f32, bf16 or f16 [default: f32 for f32 weights, else bf16]",
    ),
    setting("threads", "COUNT", "", "Compute threads [default: every CPU the process may use]"),
    setting("prefix-cache", "BOOL", "true", "Find computed prompt prefixes again"),
    setting(
        "speculative-tokens",
        "COUNT",
        "",
        "Tokens to guess from prompt and output and check in one step, which never changes the \
         text [default: the package's, then 0]",
    ),
    setting(
        "snapshots",
        "MODE",
        "auto",
        "Start packages from snapshots, and write them: auto, on (a store that cannot be used is an \
         error) or off",
    ),
    setting(
        "snapshot-dir",
        "DIR",
        "",
        "Where snapshots are kept [default: snapshots in $PINION_HOME, else in pinion in the \
         user's data directory]",
    ),
    setting(
        "snapshot-limit",
        "BYTES",
        "64GiB",
        "Size of all snapshots; the least recently used give way",
    ),
    setting(
        "snapshot-verify",
        "WHEN",
        "background",
        "When weights of a snapshot are compared with their sums: background, full (before they \
         are used) or off",
    ),
    setting("worker-headroom", "BYTES", "2GiB", "Memory that a worker may take beyond its model"),
    setting("hang-timeout", "TIME", "3s", "Silence after which a worker is killed"),
    setting("step-timeout", "TIME", "120s", "Time that one step of the engine may take"),
    setting("render-timeout", "TIME", "10s", "Time that preparing one prompt may take"),
    setting("max-body-size", "BYTES", "100MiB", "Longest request body"),
    setting("heartbeat", "TIME", "15s", "Silence after which a stream carries a heartbeat"),
    setting("node-name", "NAME", "", "Name in the ids of streams [default: the host's]"),
    setting(
        "on-disconnect",
        "POLICY",
        "linger",
        "What becomes of an inference that nobody reads: linger, cancel or complete",
    ),
    setting("linger", "TIME", "10s", "Time that an inference goes on without a reader"),
    setting("stream-ttl", "TIME", "600s", "Time that an ended stream can be read again"),
    setting("stream-memory", "BYTES", "256MiB", "Memory for the logs of streams"),
    setting(
        "stream-journal",
        "BOOL",
        "true",
        "Write streams to disk, so that they survive `serve`",
    ),
    setting(
        "stream-dir",
        "DIR",
        "",
        "Where they are written, by one node at a time [default: streams in PINION_HOME]",
    ),
    setting("stream-disk", "BYTES", "2GiB", "Disk space for the logs of streams"),
    setting("drain-timeout", "TIME", "30s", "Longest wait for running requests at shutdown"),
    setting("webhook-token", "TOKEN", "", "Bearer token of webhook deliveries"),
    setting("allow-private-webhooks", "", "false", "Let webhooks reach private addresses"),
];

/// Settings whose values are not shown.
const SECRET: &[&str] = &["api-key", "webhook-token"];

const fn setting(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { name, value, default, help }
}

impl Setting {
    /// `PINION_` and the name.
    pub fn variable(&self) -> String {
        format!("PINION_{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// Whether its value is kept out of output.
    pub fn is_secret(&self) -> bool {
        SECRET.contains(&self.name)
    }
}

/// The settings given as flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub Vec<(&'static str, String)>);

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(|setting| {
            let help = match setting.default {
                "" | "false" => setting.help.to_owned(),
                default => format!("{} [default: {default}]", setting.help),
            };
            let arg = Arg::new(setting.name).long(setting.name).help(help);
            let arg = if setting.value.is_empty() {
                arg.num_args(0..=1).default_missing_value("true").require_equals(true)
            } else {
                arg.num_args(1)
            };
            arg.value_name(if setting.value.is_empty() { "BOOL" } else { setting.value })
                .action(ArgAction::Set)
                .help_heading("Settings (also PINION_NAME and pinion.toml)")
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = SETTINGS.iter().filter_map(|setting| {
            let value = matches.get_one::<String>(setting.name)?;
            Some((setting.name, value.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
