//! Tests of `engine` and its handle, over models that follow a script.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::SchedulerOutput;
use crate::testing::{ScriptedModel, check_schedule, config, engine, one_hot};
use crate::{
    BlockPool, Choice, ClassConfig, Command, Engine, EngineError, EngineHandle, EngineParts,
    FinishReason, Request, RequestId, RouteClass, SamplingParams, Scheduler, SchedulerConfig,
    SequenceError, SequenceOutput, StepOutput, SubmitError,
};

mod architectures;
mod determinism;
mod device;
mod metamorphic;

const VOCAB: usize = 50;
const MAX_LEN: usize = 64;

fn counting(config: SchedulerConfig) -> (Engine, EngineHandle) {
    engine(Box::new(ScriptedModel::counting(VOCAB, MAX_LEN)), config, 40)
}

fn limits() -> SchedulerConfig {
    config(VOCAB, MAX_LEN)
}

fn request(id: u64) -> Request {
    Request::greedy(RequestId(id), vec![id as u32, id as u32 + 1], 4)
}

fn submit(request: Request) -> Command {
    Command::Submit(Box::new(request))
}

impl Engine {
    /// A step, and the plan it ran by.
    fn step_with_plan(&mut self) -> (SchedulerOutput, Vec<SequenceOutput>) {
        let plan = self.parts.scheduler.schedule();
        check_schedule(&self.parts.scheduler, &plan);
        let outputs = self.run_plan(&plan);
        (plan, outputs)
    }
}

/// Everything that came out, by request: token ids, and how it ended.
#[derive(Default)]
struct Collected(BTreeMap<u64, (Vec<u32>, Option<FinishReason>)>);

impl Collected {
    fn take(&mut self, outputs: Vec<SequenceOutput>) {
        for output in outputs {
            let (text, finish) = self.0.entry(output.id.0).or_default();
            assert_eq!(*finish, None, "nothing follows a finish");
            text.extend(output.token.map(|token| token.id));
            *finish = output.finish;
        }
    }

    fn run(engine: &mut Engine) -> Self {
        let mut collected = Self::default();
        for _ in 0..1000 {
            collected.take(engine.step().outputs);
            engine.scheduler().check();
            if engine.scheduler().is_idle() {
                return collected;
            }
        }
        panic!("no end: {:?}", engine.scheduler().stats())
    }

    fn finish(&self, id: u64) -> &FinishReason {
        self.0[&id].1.as_ref().expect("it ended")
    }
}

/// A model that does `at(n)` in its `n`-th step, the first being 0, and counts otherwise.
fn failing(
    at: impl Fn(usize) -> candle_core::Result<Option<Vec<f32>>> + Send + 'static,
    config: SchedulerConfig,
) -> (Engine, EngineHandle) {
    let num_rows = AtomicUsize::new(0);
    let script = move |token: u32, _| {
        let next = one_hot(VOCAB, (token + 1) % VOCAB as u32);
        Ok(at(num_rows.fetch_add(1, Ordering::Relaxed))?.unwrap_or(next))
    };
    engine(Box::new(ScriptedModel::new(VOCAB, MAX_LEN, Box::new(script))), config, 40)
}

fn error(text: &str) -> candle_core::Error {
    candle_core::Error::Msg(text.to_owned())
}

fn step_failed(message: &str) -> FinishReason {
    FinishReason::Error(SequenceError::StepFailed { message: message.to_owned() })
}

fn queue_full(max_waiting: usize) -> SubmitError {
    SubmitError::QueueFull { class: RouteClass::Default, max_waiting, retry_after: None }
}

#[test]
fn the_loop_serves_on_its_own_thread_until_the_handles_are_gone() {
    let (engine, handle) = counting(limits());
    let (outbox, mut outputs) = mpsc::channel(1);
    let thread = std::thread::spawn(move || engine.run(&outbox));
    (0..8).for_each(|id| handle.submit(request(id)).unwrap());
    let mut stats = handle.watch_stats();
    drop(handle);
    let mut collected = Collected::default();
    while let Some(StepOutput { outputs, .. }) = outputs.blocking_recv() {
        assert!(!outputs.is_empty());
        collected.take(outputs);
    }
    thread.join().unwrap().unwrap();
    for id in 0..8 {
        let expected: Vec<u32> = (2..6).map(|i| id as u32 + i).collect();
        assert_eq!(collected.0[&id], (expected, Some(FinishReason::Length)));
    }
    let stats = *stats.borrow_and_update();
    assert_eq!((stats.running, stats.waiting, stats.blocks_free), (0, 0, 39));
    assert_eq!((stats.prompt_tokens, stats.generation_tokens), (16, 32));
    assert_eq!(stats.failed_steps, 0);
}

#[test]
fn an_abort_beats_the_submit_it_came_with() {
    let (mut engine, _handle) = counting(limits());
    let abort = Command::Abort(RequestId(0));
    assert!(engine.handle(vec![abort, submit(request(0)), submit(request(1))]));
    let collected = Collected::run(&mut engine);
    assert_eq!(collected.0[&0], (vec![], Some(FinishReason::Aborted)));
    assert_eq!(collected.0[&1].0.len(), 4);
    assert!(engine.handle(vec![Command::Abort(RequestId(1)), Command::Abort(RequestId(9))]));
    assert_eq!(engine.step().outputs, []);
}

#[test]
fn a_running_request_stops_where_it_is_aborted() {
    let (mut engine, _handle) = counting(limits());
    engine.handle(vec![submit(request(0))]);
    let mut collected = Collected::default();
    (0..2).for_each(|_| collected.take(engine.step().outputs));
    engine.handle(vec![Command::Abort(RequestId(0))]);
    collected.take(engine.step().outputs);
    assert_eq!(collected.0[&0], (vec![2, 3], Some(FinishReason::Aborted)));
    assert_eq!(engine.scheduler().stats().blocks_free, 39, "in one step");
    assert!(engine.scheduler().is_idle());
}

#[test]
fn a_shutdown_ends_what_runs_and_what_waits_and_what_came_with_it() {
    let (engine, handle) = counting(SchedulerConfig { max_num_seqs: 1, ..limits() });
    let (outbox, mut outputs) = mpsc::channel(100);
    handle.submit(request(0)).unwrap();
    handle.submit(request(1)).unwrap();
    handle.shut_down();
    handle.submit(request(2)).unwrap();
    engine.run(&outbox).unwrap();
    drop(outbox);
    let mut collected = Collected::default();
    while let Some(output) = outputs.blocking_recv() {
        collected.take(output.outputs);
    }
    assert_eq!(collected.0.len(), 3);
    assert!((0..3).all(|id| *collected.finish(id) == FinishReason::Aborted));
    assert_eq!(handle.submit(request(3)), Err(SubmitError::Stopped));
    handle.abort(RequestId(0));
}

#[test]
fn an_engine_ends_when_nobody_listens() {
    let (engine, handle) = counting(limits());
    let (outbox, outputs) = mpsc::channel(1);
    drop(outputs);
    handle.submit(request(0)).unwrap();
    engine.run(&outbox).unwrap();
}

#[test]
fn a_handle_refuses_what_the_engine_would() {
    let (_engine, handle) = counting(limits());
    let refuse = |request| handle.submit(request).unwrap_err();
    assert_eq!(refuse(Request { prompt: vec![], ..request(0) }), SubmitError::EmptyPrompt);
    let adapted = refuse(Request { adapter: 0xab, ..request(0) });
    assert_eq!(adapted.to_string(), "`adapter` must be none: no adapter is loaded: ab");
    let nothing = refuse(Request::greedy(RequestId(0), vec![1], 0));
    assert_eq!(nothing.to_string(), "`max_tokens` must be at least 1: 0");
    let too_long = Request { prompt: vec![1; MAX_LEN], ..request(0) };
    let (num_tokens, max_model_len) = (MAX_LEN, MAX_LEN);
    assert_eq!(refuse(too_long), SubmitError::PromptTooLong { num_tokens, max_model_len });
    let unknown = Request { prompt: vec![1, VOCAB as u32], ..request(0) };
    assert_eq!(refuse(unknown).to_string(), "`prompt` must be a token id below 50: 50");
    let many = Request { logprobs: Some(51), ..request(0) };
    assert_eq!(refuse(many).to_string(), "`logprobs` must be at most 50: 51");
}

#[test]
fn a_handle_refuses_more_than_may_wait_before_the_engine_looks() {
    let (mut engine, handle) =
        counting(SchedulerConfig { classes: ClassConfig::with_max_waiting(3), ..limits() });
    (0..3).for_each(|id| handle.submit(request(id)).unwrap());
    assert_eq!(handle.submit(request(3)), Err(queue_full(3)));
    let commands = engine.receive().unwrap();
    assert_eq!(commands.len(), 3);
    engine.handle(commands);
    engine.step();
    assert_eq!((handle.stats().waiting, handle.stats().running), (0, 3));
    (3..6).for_each(|id| handle.submit(request(id)).unwrap());
    let full = handle.submit(request(6)).unwrap_err();
    assert!(matches!(full, SubmitError::QueueFull { max_waiting: 3, retry_after: Some(_), .. }));
}

#[test]
fn a_request_that_is_refused_late_ends_with_the_reason() {
    let (mut engine, _handle) =
        counting(SchedulerConfig { classes: ClassConfig::with_max_waiting(2), ..limits() });
    engine.handle((0..3).map(|id| submit(request(id))).collect());
    let collected = Collected::run(&mut engine);
    let full = queue_full(2);
    assert_eq!(*collected.finish(2), FinishReason::Error(SequenceError::Refused(full)));
    assert_eq!(collected.0[&1].0.len(), 4);
}

#[test]
fn a_step_that_fails_ends_its_sequences_and_not_the_engine() {
    let fails = |row| match row {
        1 => Err(error("out of luck")),
        _ => Ok(None),
    };
    let panics = |row: usize| {
        assert_ne!(row, 1, "out of luck");
        Ok(None)
    };
    let config = SchedulerConfig { max_num_seqs: 1, prefix_cache: false, ..limits() };
    for (mut engine, _handle) in [failing(fails, config.clone()), failing(panics, config)] {
        engine.handle((0..3).map(|id| submit(request(id))).collect());
        let collected = Collected::run(&mut engine);
        let (text, finish) = &collected.0[&0];
        assert_eq!(text, &[2]);
        let Some(FinishReason::Error(error)) = finish else { panic!("{finish:?}") };
        assert!(error.to_string().contains("out of luck"), "{error}");
        assert_eq!(collected.0[&1], (vec![3, 4, 5, 6], Some(FinishReason::Length)));
        assert_eq!(collected.0[&2].0.len(), 4);
        assert_eq!(engine.broken(), None);
        assert_eq!(engine.step().stats.failed_steps, 1);
        assert_eq!(engine.step().stats.blocks_free, 39);
    }
}

#[test]
fn failures_with_a_good_step_between_do_not_break_an_engine() {
    let (mut engine, _handle) = failing(
        |row| if row % 2 == 1 { Err(error("now and then")) } else { Ok(None) },
        SchedulerConfig { max_num_seqs: 1, ..limits() },
    );
    engine.handle((0..5).map(|id| submit(request(id))).collect());
    let collected = Collected::run(&mut engine);
    assert!((0..5).all(|id| *collected.finish(id) == step_failed("now and then")));
    assert_eq!(engine.broken(), None);
}

#[test]
fn two_failures_in_a_row_end_everything_with_the_reason() {
    let (engine, handle) = failing(
        |row| if 0 < row { Err(error("gone")) } else { Ok(None) },
        SchedulerConfig { max_num_seqs: 1, ..limits() },
    );
    let (outbox, mut outputs) = mpsc::channel(100);
    (0..4).for_each(|id| handle.submit(request(id)).unwrap());
    let broken = EngineError::Broken { message: "gone".into() };
    assert_eq!(engine.run(&outbox), Err(broken));
    drop(outbox);
    let mut collected = Collected::default();
    while let Some(output) = outputs.blocking_recv() {
        collected.take(output.outputs);
    }
    assert_eq!(collected.0[&0].0, [2]);
    assert!((0..4).all(|id| *collected.finish(id) == step_failed("gone")));
    assert_eq!(handle.stats().failed_steps, 2);
    assert_eq!(handle.submit(request(5)), Err(SubmitError::Stopped));
}

#[test]
fn a_row_that_is_no_number_ends_its_own_sequence_only() {
    let nan = |row| Ok((row == 1).then(|| vec![f32::NAN; VOCAB]));
    let (mut engine, _handle) = failing(nan, limits());
    engine.handle((0..3).map(|id| submit(request(id))).collect());
    let collected = Collected::run(&mut engine);
    let error = SequenceError::NonFiniteLogits { position: 2 };
    assert_eq!(*collected.finish(1), FinishReason::Error(error));
    assert_eq!(collected.0[&0].0, [2, 3, 4, 5]);
    assert_eq!(collected.0[&2].0, [4, 5, 6, 7]);
    assert_eq!(engine.step().stats.failed_steps, 0);
}

#[test]
fn logits_of_a_wrong_shape_fail_the_step() {
    // The error of candle has a backtrace where `RUST_BACKTRACE` is set; callers must not see it.
    let short = |_| Ok(Some(vec![0.0; VOCAB - 1]));
    let (mut engine, _handle) = failing(short, limits());
    engine.handle(vec![submit(request(0))]);
    let collected = Collected::run(&mut engine);
    assert!(matches!(collected.finish(0), FinishReason::Error(SequenceError::StepFailed { .. })));
}

#[test]
fn parts_of_different_models_do_not_make_an_engine() {
    let build = |config: SchedulerConfig, block_size| {
        let (engine, _handle) = counting(limits());
        let scheduler = Scheduler::new(config, BlockPool::new(40, block_size));
        Engine::new(EngineParts { scheduler, ..engine.parts }).map(drop)
    };
    let mismatch = |what, model, scheduler| Err(EngineError::Mismatch { what, model, scheduler });
    assert_eq!(build(limits(), 4), Ok(()));
    assert_eq!(build(config(VOCAB + 1, MAX_LEN), 4), mismatch("vocab_size", VOCAB, VOCAB + 1));
    assert_eq!(build(config(VOCAB, 65), 4), mismatch("max_model_len", 64, 65));
    assert_eq!(build(limits(), 8), mismatch("block_size", 4, 8));
}

#[test]
fn sampling_parameters_reach_the_sampler() {
    let (mut engine, _handle) = counting(limits());
    let sampling = SamplingParams { logit_bias: vec![(7, 100.0)], ..SamplingParams::greedy() };
    engine.handle(vec![submit(Request { sampling, logprobs: Some(1), ..request(0) })]);
    let output = engine.step().outputs.pop().unwrap();
    let token = output.token.unwrap();
    assert_eq!((token.id, token.top.len(), token.top[0].id), (7, 1, 2));
    assert!(token.logprob.unwrap() < token.top[0].logprob);
}

#[test]
fn what_is_planned_can_run_in_every_step() {
    let config =
        SchedulerConfig { max_num_seqs: 5, max_num_batched_tokens: 7, max_chunk: 4, ..limits() };
    let model = Box::new(ScriptedModel::counting(VOCAB, MAX_LEN));
    let (mut engine, _handle) = engine(model, config, 12);
    for id in 0..20u64 {
        let prompt = (0..=id * 7 % 20).map(|i| (i % 5) as u32).collect();
        engine.handle(vec![submit(Request { prompt, ..request(id) })]);
    }
    while !engine.scheduler().is_idle() {
        let plan = engine.parts.scheduler.schedule();
        check_schedule(&engine.parts.scheduler, &plan);
        engine.run_plan(&plan);
    }
}

#[test]
fn choices_are_requests_of_their_own_with_their_own_seeds() {
    let flat = |_: usize| Ok(Some(vec![0.0; VOCAB]));
    let sampled = |seed| {
        let sampling = SamplingParams { temperature: 1.0, seed, ..SamplingParams::greedy() };
        Request { sampling, ..request(seed) }
    };
    let choices =
        vec![Choice { id: RequestId(11), seed: 1 }, Choice { id: RequestId(12), seed: 2 }];
    let (mut engine, _handle) = failing(flat, limits());
    engine.handle(vec![submit(Request { choices, prompt: vec![0, 1], ..sampled(0) })]);
    let together = Collected::run(&mut engine);
    for (id, seed) in [(0, 0), (11, 1), (12, 2)] {
        let (mut engine, _handle) = failing(flat, limits());
        engine.handle(vec![submit(Request { prompt: vec![0, 1], ..sampled(seed) })]);
        assert_eq!(together.0[&id], Collected::run(&mut engine).0[&seed]);
    }
    assert_ne!(together.0[&0], together.0[&11]);
}
