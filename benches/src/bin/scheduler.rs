//! What planning and recording a step costs, without a model.
//!
//! Each case runs sequences of a thousand tokens that sample one token a step, in a pool that is
//! large enough, and prints the median time of `schedule` and `apply` together:
//! `cargo run --release -p pinion-benches --bin scheduler`.
#![forbid(unsafe_code)]

use std::io::Write;
use std::time::{Duration, Instant};

use pinion_engine::testing::config;
use pinion_engine::{
    BlockPool, ClassConfig, Request, RequestId, RouteClass, SampledToken, Scheduler,
    SchedulerConfig,
};

const BLOCK_SIZE: usize = 16;
const PROMPT: usize = 1000;
const STEPS: usize = 400;
const MAX_TOKENS: usize = 2000;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{:>8} {:>8} {:>12} {:>12}", "running", "waiting", "median us", "ns a seq")?;
    let cases = [(1, 0), (16, 0), (64, 0), (256, 0), (1024, 0), (64, 64), (64, 1024)];
    for (num_running, num_waiting) in cases {
        let median = measure(num_running, num_waiting).as_secs_f64();
        let a_sequence = median * 1e9 / num_running as f64;
        let median = median * 1e6;
        writeln!(out, "{num_running:>8} {num_waiting:>8} {median:>12.2} {a_sequence:>12.0}")?;
    }
    Ok(())
}

fn measure(num_running: usize, num_waiting: usize) -> Duration {
    let mut scheduler = busy(num_running, num_waiting);
    let mut times: Vec<Duration> = (0..STEPS).map(|_| step(&mut scheduler)).collect();
    let stats = scheduler.stats();
    assert_eq!((stats.running, stats.waiting), (num_running, num_waiting));
    times.sort_unstable();
    times[STEPS / 2]
}

/// A scheduler with so many sequences that decode, of all classes, and others that wait for them.
fn busy(num_running: usize, num_waiting: usize) -> Scheduler {
    let max_model_len = PROMPT + MAX_TOKENS;
    let config = SchedulerConfig {
        max_num_seqs: num_running,
        max_num_batched_tokens: 2048.max(num_running),
        max_chunk: 2048,
        classes: ClassConfig::with_max_waiting(num_running + num_waiting),
        ..config(50_000, max_model_len)
    };
    let num_blocks = (num_running + 1) * max_model_len.div_ceil(BLOCK_SIZE) + 1;
    let mut scheduler = Scheduler::new(config, BlockPool::new(num_blocks, BLOCK_SIZE));
    add(&mut scheduler, 0..num_running as u64);
    while decoding(&scheduler, num_running as u64) < num_running {
        step(&mut scheduler);
    }
    let first = num_running as u64;
    add(&mut scheduler, first..first + num_waiting as u64);
    scheduler
}

/// How many have their whole prompt computed.
fn decoding(scheduler: &Scheduler, num_running: u64) -> usize {
    let all = (0..num_running).filter_map(|id| scheduler.sequence(RequestId(id)));
    all.filter(|seq| 0 < seq.num_output_tokens()).count()
}

fn add(scheduler: &mut Scheduler, ids: std::ops::Range<u64>) {
    for id in ids {
        let prompt = (0..PROMPT as u64).map(|at| (at * 31 + id * 17) as u32 % 50_000).collect();
        let class = RouteClass::ALL[id as usize % 4];
        let request = Request::greedy(RequestId(id), prompt, MAX_TOKENS);
        scheduler
            .try_add(Request { class, ..request }, Duration::ZERO)
            .expect("the queues are long enough");
    }
}

fn step(scheduler: &mut Scheduler) -> Duration {
    let started = Instant::now();
    let plan = scheduler.schedule();
    let planned = started.elapsed();
    let rows = plan.scheduled.iter().flat_map(|item| std::iter::repeat_n(item, item.num_rows));
    let token = |id: u64| SampledToken { id: id as u32 % 1000, logprob: None, top: Vec::new() };
    let sampled = rows.map(|item| Ok(token(item.id.0))).collect();
    let started = Instant::now();
    let outputs = scheduler.apply(&plan, sampled);
    let applied = started.elapsed();
    assert!(outputs.iter().all(|output| output.finish.is_none()));
    planned + applied
}
