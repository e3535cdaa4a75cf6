//! The metrics table, and its rendering in Prometheus' text format.
//!
//! Routers, autoscalers and dashboards already know vLLM's and OpenTelemetry's names, so the same
//! numbers are given under these as well.

use std::fmt::Write;

use pinion_engine::RouteClass;

use super::{Histogram, HttpMetrics, Outcome, PackageMetrics};
use crate::journal::JournalUsage;
use crate::stream::StreamUsage;
use crate::supervisor::{Package, StateKind};

/// One metric and the names it goes by.
#[derive(Debug)]
pub struct Metric {
    /// Pinion's own name.
    pub name: &'static str,
    /// Other names for the same numbers.
    pub aliases: &'static [&'static str],
    /// What kind of number it is.
    pub kind: Kind,
    /// What it counts.
    pub help: &'static str,
    read: Read,
}

/// Kinds of metrics, as Prometheus names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Goes up.
    Counter,
    /// Durations in buckets.
    Histogram,
}

/// Where a metric's numbers come from.
#[derive(Debug)]
enum Read {
    Node(fn() -> Vec<Sample>),
    Http,
    Streams(fn(&StreamUsage) -> Vec<Sample>),
    Package(fn(&Package) -> f64),
    Samples(fn(&Package) -> Vec<Sample>),
    Durations(fn(&PackageMetrics) -> &Histogram),
}

type Sample = (Vec<(&'static str, String)>, f64);

/// Every metric of `/metrics`.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "pinion_build_info",
        aliases: &[],
        kind: Kind::Gauge,
        help: "Version of the binary.",
        read: Read::Node(|| vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)]),
    },
    Metric {
        name: "pinion_http_requests_total",
        aliases: &[],
        kind: Kind::Counter,
        help: "HTTP requests answered, by method, route and status.",
        read: Read::Http,
    },
    Metric {
        name: "pinion_streams",
        aliases: &[],
        kind: Kind::Gauge,
        help: "Streams that can be read, running and ended.",
        read: Read::Streams(|streams| {
            let sample = |state: &str, count| (vec![("state", state.to_owned())], count as f64);
            vec![sample("active", streams.active), sample("ended", streams.ended)]
        }),
    },
    Metric {
        name: "pinion_stream_bytes",
        aliases: &[],
        kind: Kind::Gauge,
        help: "Bytes of the logs of streams.",
        read: Read::Streams(|streams| vec![(Vec::new(), streams.bytes as f64)]),
    },
    Metric {
        name: "pinion_streams_evicted_total",
        aliases: &[],
        kind: Kind::Counter,
        help: "Ended streams that were dropped before their time, for lack of memory.",
        read: Read::Streams(|streams| vec![(Vec::new(), streams.num_evicted as f64)]),
    },
    Metric {
        name: "pinion_idempotent_hits_total",
        aliases: &[],
        kind: Kind::Counter,
        help: "Requests that joined the stream of an earlier one with their key.",
        read: Read::Streams(|streams| vec![(Vec::new(), streams.num_replayed as f64)]),
    },
    Metric {
        name: "pinion_streams_restored_total",
        aliases: &[],
        kind: Kind::Counter,
        help: "Streams of an earlier node that were found again.",
        read: Read::Streams(|streams| vec![(Vec::new(), streams.num_restored as f64)]),
    },
    Metric {
        name: "pinion_stream_limit_bytes",
        aliases: &[],
        kind: Kind::Gauge,
        help: "Bytes that the logs of streams may take.",
        read: Read::Streams(|streams| {
            let limit = |place: &str, bytes| (vec![("place", place.to_owned())], bytes as f64);
            let disk = streams.journal.map(|journal| limit("disk", journal.budget_bytes));
            [limit("memory", streams.limit_bytes as u64)].into_iter().chain(disk).collect()
        }),
    },
    Metric {
        name: "pinion_stream_ttl",
        aliases: &[],
        kind: Kind::Gauge,
        help: "Seconds that an ended stream is kept.",
        read: Read::Streams(|streams| vec![(Vec::new(), streams.ttl.as_secs_f64())]),
    },
    Metric {
        name: "pinion_journal_durable",
        aliases: &[],
        kind: Kind::Gauge,
        help: "1 where streams survive the end of the node, 0 where the disk fails.",
        read: Read::Streams(|streams| journal(streams, |one| u64::from(one.is_durable))),
    },
    Metric {
        name: "pinion_journal_losses_total",
        aliases: &[],
        kind: Kind::Counter,
        help: "Times that the disk failed and streams went on without it.",
        read: Read::Streams(|streams| journal(streams, |one| one.losses)),
    },
    Metric {
        name: "pinion_journal_damaged_segments",
        aliases: &[],
        kind: Kind::Gauge,
        help: "Segments that were not what was written when the node started.",
        read: Read::Streams(|streams| journal(streams, |one| one.damaged)),
    },
    Metric {
        name: "pinion_journal_bytes",
        aliases: &[],
        kind: Kind::Gauge,
        help: "Bytes of segments on the disk.",
        read: Read::Streams(|streams| journal(streams, |one| one.disk_bytes)),
    },
    Metric {
        name: "pinion_journal_segments",
        aliases: &[],
        kind: Kind::Gauge,
        help: "Segments on the disk.",
        read: Read::Streams(|streams| journal(streams, |one| one.segments)),
    },
    Metric {
        name: "pinion_journal_written_bytes_total",
        aliases: &[],
        kind: Kind::Counter,
        help: "Bytes written.",
        read: Read::Streams(|streams| journal(streams, |one| one.bytes)),
    },
    Metric {
        name: "pinion_journal_records_total",
        aliases: &[],
        kind: Kind::Counter,
        help: "Records written, each with all that waited.",
        read: Read::Streams(|streams| journal(streams, |one| one.records)),
    },
    Metric {
        name: "pinion_journal_syncs_total",
        aliases: &[],
        kind: Kind::Counter,
        help: "Waits until the disk had what was written.",
        read: Read::Streams(|streams| journal(streams, |one| one.syncs)),
    },
    Metric {
        name: "pinion_package_state",
        aliases: &[],
        kind: Kind::Gauge,
        help: "1 for the state that the package is in, 0 for the others.",
        read: Read::Samples(states),
    },
    Metric {
        name: "pinion_requests_in_flight",
        aliases: &[],
        kind: Kind::Gauge,
        help: "Generations admitted and not yet ended.",
        read: Read::Package(|package| package.in_flight() as f64),
    },
    Metric {
        name: "pinion_requests_running",
        aliases: &["vllm:num_requests_running"],
        kind: Kind::Gauge,
        help: "Sequences in the batch.",
        read: Read::Package(|package| f64::from(package.stats().running)),
    },
    Metric {
        name: "pinion_requests_waiting",
        aliases: &["vllm:num_requests_waiting"],
        kind: Kind::Gauge,
        help: "Sequences in the queue.",
        read: Read::Package(|package| f64::from(package.stats().waiting)),
    },
    Metric {
        name: "pinion_class_requests",
        aliases: &[],
        kind: Kind::Gauge,
        help: "Sequences of each route class, in the batch and in the queue.",
        read: Read::Samples(classes),
    },
    Metric {
        name: "pinion_kv_cache_usage_ratio",
        aliases: &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"],
        kind: Kind::Gauge,
        help: "Share of the KV blocks in use, 0 to 1.",
        read: Read::Package(kv_usage),
    },
    Metric {
        name: "pinion_cache_config_info",
        aliases: &["vllm:cache_config_info"],
        kind: Kind::Gauge,
        help: "Tokens a KV block and count of blocks.",
        read: Read::Samples(cache_config),
    },
    Metric {
        name: "pinion_requests_total",
        aliases: &[],
        kind: Kind::Counter,
        help: "Generations that ended, by outcome.",
        read: Read::Samples(outcomes),
    },
    Metric {
        name: "pinion_requests_finished_total",
        aliases: &["vllm:request_success_total"],
        kind: Kind::Counter,
        help: "Generations that ended by themselves, by reason.",
        read: Read::Samples(finish_reasons),
    },
    Metric {
        name: "pinion_prompt_tokens_total",
        aliases: &["vllm:prompt_tokens_total"],
        kind: Kind::Counter,
        help: "Prompt tokens computed.",
        read: Read::Package(|package| package.stats().prompt_tokens as f64),
    },
    Metric {
        name: "pinion_generation_tokens_total",
        aliases: &["vllm:generation_tokens_total"],
        kind: Kind::Counter,
        help: "Tokens generated.",
        read: Read::Package(|package| package.stats().generation_tokens as f64),
    },
    Metric {
        name: "pinion_prefix_cache_queries_total",
        aliases: &["vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"],
        kind: Kind::Counter,
        help: "Prompt tokens looked up in the prefix cache.",
        read: Read::Package(|package| package.stats().prefix_queries as f64),
    },
    Metric {
        name: "pinion_prefix_cache_hits_total",
        aliases: &["vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"],
        kind: Kind::Counter,
        help: "Prompt tokens found in the prefix cache.",
        read: Read::Package(|package| package.stats().prefix_hits as f64),
    },
    Metric {
        name: "pinion_speculative_tokens_proposed_total",
        aliases: &["vllm:spec_decode_num_draft_tokens_total"],
        kind: Kind::Counter,
        help: "Tokens that were guessed and checked.",
        read: Read::Package(|package| package.stats().draft_tokens as f64),
    },
    Metric {
        name: "pinion_speculative_tokens_accepted_total",
        aliases: &["vllm:spec_decode_num_accepted_tokens_total"],
        kind: Kind::Counter,
        help: "Guessed tokens that were right.",
        read: Read::Package(|package| package.stats().accepted_draft_tokens as f64),
    },
    Metric {
        name: "pinion_speculative_acceptance_rate",
        aliases: &[],
        kind: Kind::Gauge,
        help: "Share of the guessed tokens that were right, from 0 to 1, since the worker started.",
        read: Read::Package(|package| {
            let stats = package.stats();
            stats.accepted_draft_tokens as f64 / stats.draft_tokens.max(1) as f64
        }),
    },
    Metric {
        name: "pinion_preemptions_total",
        aliases: &["vllm:num_preemptions_total"],
        kind: Kind::Counter,
        help: "Sequences sent back to the queue for want of KV blocks.",
        read: Read::Package(|package| package.stats().num_preemptions as f64),
    },
    Metric {
        name: "pinion_engine_steps_total",
        aliases: &[],
        kind: Kind::Counter,
        help: "Forward passes.",
        read: Read::Package(|package| package.stats().steps as f64),
    },
    Metric {
        name: "pinion_worker_deaths_total",
        aliases: &[],
        kind: Kind::Counter,
        help: "Workers that died or were killed because they hung.",
        read: Read::Package(|package| package.metrics().worker_deaths() as f64),
    },
    Metric {
        name: "pinion_generations_resumed_total",
        aliases: &[],
        kind: Kind::Counter,
        help: "Generations that went on with another worker after theirs died.",
        read: Read::Package(|package| package.metrics().num_resumed() as f64),
    },
    Metric {
        name: "pinion_time_to_first_token_seconds",
        aliases: &["vllm:time_to_first_token_seconds", "gen_ai_server_time_to_first_token_seconds"],
        kind: Kind::Histogram,
        help: "From submission to the first token.",
        read: Read::Durations(|metrics| &metrics.time_to_first_token),
    },
    Metric {
        name: "pinion_inter_token_latency_seconds",
        aliases: &[
            "vllm:inter_token_latency_seconds",
            "gen_ai_server_time_per_output_token_seconds",
        ],
        kind: Kind::Histogram,
        help: "Between tokens of one sequence.",
        read: Read::Durations(|metrics| &metrics.inter_token_latency),
    },
    Metric {
        name: "pinion_request_duration_seconds",
        aliases: &["vllm:e2e_request_latency_seconds", "gen_ai_server_request_duration_seconds"],
        kind: Kind::Histogram,
        help: "From submission to the end.",
        read: Read::Durations(|metrics| &metrics.request_duration),
    },
];

/// The text of `/metrics`.
pub(crate) fn render(packages: &[Package], http: &HttpMetrics, streams: &StreamUsage) -> String {
    let mut out = String::new();
    for metric in METRICS {
        for name in std::iter::once(&metric.name).chain(metric.aliases) {
            metric.render(name, (packages, http, streams), &mut out);
        }
    }
    out
}

impl Metric {
    fn render(
        &self,
        name: &str,
        (packages, http, streams): (&[Package], &HttpMetrics, &StreamUsage),
        out: &mut String,
    ) {
        let kind = match self.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        let _infallible = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", self.help);
        match self.read {
            Read::Node(read) => lines(out, name, &read()),
            Read::Streams(read) => lines(out, name, &read(streams)),
            Read::Http => http_lines(out, name, http),
            Read::Package(_) | Read::Samples(_) | Read::Durations(_) => {
                packages.iter().for_each(|package| self.render_package(name, package, out));
            }
        }
    }

    fn render_package(&self, name: &str, package: &Package, out: &mut String) {
        let label = match name {
            _ if name.starts_with("vllm:") => "model_name",
            _ if name.starts_with("gen_ai_") => "gen_ai_request_model",
            _ => "package",
        };
        let labels = || vec![(label, package.name().to_owned())];
        match self.read {
            Read::Package(read) => line(out, name, &labels(), read(package)),
            Read::Samples(read) => {
                for (more, value) in read(package) {
                    line(out, name, &[labels(), more].concat(), value);
                }
            }
            Read::Durations(read) => histogram(out, name, &labels(), read(package.metrics())),
            Read::Node(_) | Read::Http | Read::Streams(_) => {}
        }
    }
}

/// A number of the journal; none where there is no journal.
fn journal(streams: &StreamUsage, read: fn(&JournalUsage) -> u64) -> Vec<Sample> {
    streams.journal.iter().map(|journal| (Vec::new(), read(journal) as f64)).collect()
}

fn lines(out: &mut String, name: &str, samples: &[Sample]) {
    samples.iter().for_each(|(labels, value)| line(out, name, labels, *value));
}

fn histogram(out: &mut String, name: &str, labels: &[(&str, String)], histogram: &Histogram) {
    let mut count = 0;
    for (bound, up_to) in histogram.cumulative() {
        let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
        let labels = [labels, &[("le", bound)]].concat();
        line(out, &format!("{name}_bucket"), &labels, up_to as f64);
        count = up_to;
    }
    line(out, &format!("{name}_sum"), labels, histogram.sum());
    line(out, &format!("{name}_count"), labels, count as f64);
}

fn http_lines(out: &mut String, name: &str, http: &HttpMetrics) {
    for (method, route, status, count) in http.answers() {
        let labels = [("method", method), ("route", route), ("status", status.to_string())];
        line(out, name, &labels, count as f64);
    }
}

/// Writing to a `String` cannot fail.
fn line(out: &mut String, name: &str, labels: &[(&str, String)], value: f64) {
    out.push_str(name);
    for (index, (label, text)) in labels.iter().enumerate() {
        let open = if index == 0 { '{' } else { ',' };
        let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let _infallible = write!(out, "{open}{label}=\"{text}\"");
    }
    let close = if labels.is_empty() { "" } else { "}" };
    let _infallible = writeln!(out, "{close} {value}");
}

fn classes(package: &Package) -> Vec<Sample> {
    let stats = package.stats();
    let sample = |class: RouteClass, state: &str, count: u32| {
        let labels = vec![("class", class.name().to_owned()), ("state", state.to_owned())];
        (labels, f64::from(count))
    };
    let of_class = |class| {
        let (running, waiting) =
            (stats.class_running[class as usize], stats.class_waiting[class as usize]);
        [sample(class, "running", running), sample(class, "waiting", waiting)]
    };
    RouteClass::ALL.into_iter().flat_map(of_class).collect()
}

fn kv_usage(package: &Package) -> f64 {
    let stats = package.stats();
    let used = stats.blocks_total.saturating_sub(stats.blocks_free);
    f64::from(used) / f64::from(stats.blocks_total.max(1))
}

fn cache_config(package: &Package) -> Vec<Sample> {
    let Some(info) = package.info() else { return Vec::new() };
    let labels = vec![
        ("block_size", info.block_size.to_string()),
        ("num_gpu_blocks", info.num_blocks.to_string()),
    ];
    vec![(labels, 1.0)]
}

fn states(package: &Package) -> Vec<Sample> {
    let now = package.state().kind();
    let sample = |state: StateKind| {
        let value = if state == now { 1.0 } else { 0.0 };
        (vec![("state", state.as_str().to_owned())], value)
    };
    StateKind::ALL.into_iter().map(sample).collect()
}

fn outcomes(package: &Package) -> Vec<Sample> {
    samples(package, "outcome", &Outcome::ALL)
}

fn finish_reasons(package: &Package) -> Vec<Sample> {
    samples(package, "finished_reason", &[Outcome::Stop, Outcome::Length])
}

fn samples(package: &Package, label: &'static str, outcomes: &[Outcome]) -> Vec<Sample> {
    let sample = |outcome: &Outcome| {
        let count = package.metrics().finished(*outcome) as f64;
        (vec![(label, outcome.as_str().to_owned())], count)
    };
    outcomes.iter().map(sample).collect()
}
