//! From records to figures.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::load::{Arrival, Record};
use super::workload::Workload;

/// What a request must hold to count as good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slo {
    /// Longest time to the first token.
    pub(super) ttft: Duration,
    /// Longest mean time per further token.
    pub(super) tpot: Duration,
}

/// Percentiles of one figure, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Percentiles {
    mean: f64,
    p50: f64,
    p90: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

/// The figures of a run.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) failed: usize,
    succeeded: usize,
    elapsed: Duration,
    prompt_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    good: usize,
    slo: Slo,
    rows: [(&'static str, Percentiles); 4],
    first_error: Option<String>,
}

impl Report {
    pub(super) fn new(records: &[Record], elapsed: Duration, slo: Slo) -> Self {
        let ok: Vec<&Record> = records.iter().filter(|record| record.error.is_none()).collect();
        let all = |of: &dyn Fn(&Record) -> Vec<Duration>| -> Percentiles {
            percentiles(ok.iter().flat_map(|record| of(record)).collect())
        };
        let sum = |of: fn(&Record) -> u64| ok.iter().map(|record| of(record)).sum();
        let rows = [
            ("TTFT", all(&|record| record.ttft.into_iter().collect())),
            ("ITL", all(&|record| record.gaps.clone())),
            ("TPOT", all(&|record| tpot(record).into_iter().collect())),
            ("end to end", all(&|record| vec![record.e2e])),
        ];
        let good = ok.iter().filter(|record| {
            record.ttft.is_some_and(|ttft| ttft <= slo.ttft)
                && tpot(record).is_none_or(|tpot| tpot <= slo.tpot)
        });
        Self {
            failed: records.len() - ok.len(),
            succeeded: ok.len(),
            elapsed,
            prompt_tokens: sum(|record| record.prompt_tokens),
            cached_tokens: sum(|record| record.cached_tokens),
            output_tokens: sum(|record| record.output_tokens),
            good: good.count(),
            slo,
            rows,
            first_error: records.iter().find_map(|record| record.error.clone()),
        }
    }

    pub(super) fn to_json(&self, workload: &Workload, arrival: Arrival) -> Value {
        let seconds = self.elapsed.as_secs_f64();
        let latencies = self.rows.iter().map(|(name, p)| {
            let values = json!({
                "mean": p.mean, "p50": p.p50, "p90": p.p90, "p95": p.p95, "p99": p.p99, "max": p.max,
            });
            (format!("{}_ms", name.to_lowercase().replace(' ', "_")), values)
        });
        let (mode, value) = arrival_parts(arrival);
        json!({
            "model": workload.model, "mode": mode, mode: value, "seed": workload.seed,
            "succeeded": self.succeeded, "failed": self.failed, "seconds": seconds,
            "prompt_tokens": self.prompt_tokens, "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "output_tokens_per_second": self.output_tokens as f64 / seconds,
            "total_tokens_per_second": (self.prompt_tokens + self.output_tokens) as f64 / seconds,
            "requests_per_second": self.succeeded as f64 / seconds,
            "goodput_requests_per_second": self.good as f64 / seconds,
            "good_share": self.good as f64 / (self.succeeded + self.failed).max(1) as f64,
            "slo": { "ttft_ms": millis(self.slo.ttft), "tpot_ms": millis(self.slo.tpot) },
            "latency": latencies.collect::<serde_json::Map<_, _>>(),
            "first_error": self.first_error,
        })
    }

    pub(super) fn to_table(&self, workload: &Workload, arrival: Arrival) -> String {
        let seconds = self.elapsed.as_secs_f64();
        let (mode, value) = arrival_parts(arrival);
        let mut table = format!(
            "{}: {} requests in {seconds:.2} s, {mode} {value}, {} failed\n\n",
            workload.model, self.succeeded, self.failed
        );
        let header = ["ms", "mean", "p50", "p90", "p95", "p99", "max"];
        let line = |cells: [String; 7]| {
            let [name, rest @ ..] = cells;
            let mut line = format!("{name:<12}");
            rest.iter().for_each(|cell| {
                // Writing to a string does not fail.
                let _ = write!(line, "{cell:>10}");
            });
            line + "\n"
        };
        table += &line(header.map(str::to_owned));
        for (name, p) in &self.rows {
            let values = [p.mean, p.p50, p.p90, p.p95, p.p99, p.max].map(|ms| format!("{ms:.2}"));
            let [a, b, c, d, e, f] = values;
            table += &line([(*name).to_owned(), a, b, c, d, e, f]);
        }
        let rate = |count: u64| count as f64 / seconds;
        let _ = write!(
            table,
            "\noutput  {:.1} tokens/s ({} tokens)\nprompt  {:.1} tokens/s ({} tokens, {} cached)\n\
             goodput {:.2} requests/s ({} of {}: TTFT <= {} ms, TPOT <= {} ms)",
            rate(self.output_tokens),
            self.output_tokens,
            rate(self.prompt_tokens),
            self.prompt_tokens,
            self.cached_tokens,
            self.good as f64 / seconds,
            self.good,
            self.succeeded + self.failed,
            millis(self.slo.ttft),
            millis(self.slo.tpot),
        );
        if let Some(error) = &self.first_error {
            let _ = write!(table, "\nfirst error: {error}");
        }
        table
    }
}

fn arrival_parts(arrival: Arrival) -> (&'static str, f64) {
    match arrival {
        Arrival::Concurrency(streams) => ("concurrency", streams as f64),
        Arrival::Rate(rate) => ("rate", rate),
    }
}

/// Mean time per token after the first.
fn tpot(record: &Record) -> Option<Duration> {
    let further = record.output_tokens.checked_sub(1).filter(|count| 0 < *count)?;
    Some((record.e2e.saturating_sub(record.ttft?)) / u32::try_from(further).ok()?)
}

fn percentiles(mut values: Vec<Duration>) -> Percentiles {
    values.sort_unstable();
    let Some(last) = values.last() else { return Percentiles::default() };
    // The nearest rank: the least value that this share of all does not exceed.
    let at = |percent: usize| millis(values[(percent * values.len()).div_ceil(100).max(1) - 1]);
    let mean = values.iter().map(|value| millis(*value)).sum::<f64>() / values.len() as f64;
    Percentiles { mean, p50: at(50), p90: at(90), p95: at(95), p99: at(99), max: millis(*last) }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let values = (1..=100).rev().map(Duration::from_millis).collect();
        let p = percentiles(values);
        let shown = [p.p50, p.p90, p.p95, p.p99, p.max].map(|ms| format!("{ms:.3}"));
        assert_eq!(shown, ["50.000", "90.000", "95.000", "99.000", "100.000"]);
        assert!((p.mean - 50.5).abs() < 1e-9);
        assert_eq!(percentiles(Vec::new()), Percentiles::default());
    }

    #[test]
    fn goodput_counts_requests_that_hold_both_bounds() {
        let ms = Duration::from_millis;
        let record = |ttft, e2e, output_tokens| Record {
            ttft: Some(ms(ttft)),
            e2e: ms(e2e),
            output_tokens,
            ..Record::default()
        };
        let failed = Record { error: Some("no".to_owned()), ..Record::default() };
        let records = [record(50, 150, 11), record(150, 160, 11), record(50, 550, 11), failed];
        let report = Report::new(&records, ms(2000), Slo { ttft: ms(100), tpot: ms(20) });
        assert_eq!((report.good, report.succeeded, report.failed), (1, 3, 1));
        assert_eq!(report.output_tokens, 33);
    }
}
