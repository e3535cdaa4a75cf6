//! Tests of `scheduler`.

use std::fmt::Write as _;
use std::time::Duration;

use insta::assert_snapshot;

use crate::testing::{check_schedule, config};
use crate::{
    BlockPool, ClassConfig, FinishReason, Request, RequestId, RouteClass, SampledToken, Scheduler,
    SchedulerConfig, SequenceError, SequenceOutput, SubmitError,
};

mod properties;
mod rules;

const BLOCK_SIZE: usize = 4;

fn limits() -> SchedulerConfig {
    config(1000, 64)
}

/// A scheduler and what it did, a line a step: `A[0..5]*` means that tokens 0 to 4 of request A ran
/// and the next one was sampled, `*3` that three rows were looked at,
/// `=` that it was sampled from the row of the one before, `3>4` that block 3 was copied to 4, `-A`
/// that A gave way.
struct Trace {
    scheduler: Scheduler,
    text: String,
}

impl Trace {
    fn new(config: SchedulerConfig, num_blocks: usize) -> Self {
        let pool = BlockPool::new(num_blocks + 1, BLOCK_SIZE);
        Self { scheduler: Scheduler::new(config, pool), text: String::new() }
    }

    fn add(&mut self, request: Request) -> &mut Self {
        self.scheduler.try_add(request, Duration::ZERO).unwrap();
        self
    }

    fn step(&mut self) -> Vec<SequenceOutput> {
        let plan = self.scheduler.schedule();
        check_schedule(&self.scheduler, &plan);
        for item in &plan.scheduled {
            let start = self.scheduler.sequence(item.id).unwrap().num_computed_tokens;
            let end = start + item.num_tokens;
            let star = match item.num_rows {
                _ if item.shares_row => "=".to_owned(),
                0 => String::new(),
                1 => "*".to_owned(),
                num_rows => format!("*{num_rows}"),
            };
            write!(self.text, "{}[{start}..{end}]{star} ", name(item.id)).unwrap();
        }
        for (from, to) in &plan.copies {
            write!(self.text, "{from}>{to} ").unwrap();
        }
        for &id in &plan.preempted {
            write!(self.text, "-{} ", name(id)).unwrap();
        }
        writeln!(self.text, "free {}", self.scheduler.stats().blocks_free).unwrap();
        let rows = plan.scheduled.iter().flat_map(|item| std::iter::repeat_n(item, item.num_rows));
        let sampled = rows.map(|item| Ok(token(500 + item.id.0 as u32))).collect();
        let outputs = self.scheduler.apply(&plan, sampled);
        self.scheduler.check();
        outputs
    }

    fn steps(&mut self, num_steps: usize) -> &mut Self {
        (0..num_steps).for_each(|_| drop(self.step()));
        self
    }

    /// Lets the line move on as if a request had come and gone.
    fn skip_arrival(&mut self) {
        let id = RequestId(99);
        self.scheduler.try_add(Request::greedy(id, vec![0], 1), Duration::ZERO).unwrap();
        self.scheduler.abort(id).unwrap();
    }

    /// Runs until nothing is left.
    fn finish(&mut self) -> &str {
        for _ in 0..1000 {
            if self.scheduler.is_idle() {
                assert_eq!(
                    self.scheduler.stats().blocks_free,
                    self.scheduler.limits().blocks_total
                );
                return &self.text;
            }
            self.step();
        }
        panic!("no end:\n{}", self.text)
    }
}

fn name(id: RequestId) -> char {
    char::from(b'A' + id.0 as u8)
}

fn token(id: u32) -> SampledToken {
    SampledToken { id, logprob: None, top: Vec::new() }
}

fn num_cached(output: &SequenceOutput) -> Option<usize> {
    output.prompt.as_ref().map(|prompt| prompt.num_cached_tokens)
}

/// Prompts of different requests share no token.
fn request(id: u64, num_tokens: usize, max_tokens: usize) -> Request {
    let prompt = (0..num_tokens as u32).map(|i| i + 40 * id as u32).collect();
    Request::greedy(RequestId(id), prompt, max_tokens)
}

fn queue_full(max_waiting: usize) -> SubmitError {
    SubmitError::QueueFull { class: RouteClass::Default, max_waiting, retry_after: None }
}

#[test]
fn prompts_and_single_tokens_share_a_step() {
    let mut trace = Trace::new(limits(), 20);
    trace.add(request(0, 5, 3)).steps(1).add(request(1, 6, 2)).add(request(2, 1, 2));
    assert_snapshot!(trace.finish(), @r"
    A[0..5]* free 18
    A[5..6]* B[0..6]* C[0..1]* free 15
    A[6..7]* B[6..7]* C[1..2]* free 15
    ");
}

#[test]
fn a_long_prompt_comes_in_chunks_and_single_tokens_go_first() {
    let config = SchedulerConfig { max_num_batched_tokens: 6, max_chunk: 4, ..limits() };
    let mut trace = Trace::new(config, 20);
    // B and C decode while A, before them in line, still reads its prompt.
    trace.add(request(0, 16, 2)).steps(1);
    trace.add(request(1, 1, 5)).add(request(2, 1, 5));
    assert_snapshot!(trace.finish(), @r"
    A[0..4] free 19
    A[4..8] B[0..1]* C[0..1]* free 16
    A[8..12] B[1..2]* C[1..2]* free 15
    A[12..16]* B[2..3]* C[2..3]* free 14
    A[16..17]* B[3..4]* C[3..4]* free 13
    B[4..5]* C[4..5]* free 16
    ");
}

#[test]
fn an_urgent_prompt_takes_from_prompts_and_not_from_single_tokens() {
    let config = SchedulerConfig { max_num_batched_tokens: 6, max_chunk: 4, ..limits() };
    let mut trace = Trace::new(config, 20);
    trace.add(request(0, 16, 1)).add(request(1, 1, 6)).steps(1);
    trace.add(Request { class: RouteClass::Latency, ..request(2, 9, 2) });
    assert_snapshot!(trace.finish(), @r"
    A[0..4] B[0..1]* free 18
    C[0..4] A[4..5] B[1..2]* free 16
    C[4..8] A[5..6] B[2..3]* free 15
    C[8..9]* A[6..10] B[3..4]* free 13
    C[9..10]* A[10..14] B[4..5]* free 11
    A[14..16]* B[5..6]* free 14
    ");
}

#[test]
fn the_budget_of_a_step_is_shared_in_line_order_after_single_tokens() {
    let config = SchedulerConfig { max_num_batched_tokens: 4, ..limits() };
    let mut trace = Trace::new(config, 20);
    trace.add(request(0, 2, 9)).steps(1);
    trace.add(request(1, 9, 1)).add(request(2, 4, 1));
    assert_snapshot!(trace.finish(), @r"
    A[0..2]* free 19
    A[2..3]* B[0..3] free 18
    A[3..4]* B[3..6] free 17
    A[4..5]* B[6..9]* free 15
    A[5..6]* C[0..3] free 17
    A[6..7]* C[3..4]* free 17
    A[7..8]* free 18
    A[8..9]* free 17
    A[9..10]* free 17
    ");
}

#[test]
fn a_step_has_no_more_sequences_than_allowed() {
    let mut trace = Trace::new(SchedulerConfig { max_num_seqs: 2, ..limits() }, 20);
    trace.add(request(0, 2, 2)).add(request(1, 2, 1)).add(request(2, 2, 1));
    assert_snapshot!(trace.finish(), @r"
    A[0..2]* B[0..2]* free 18
    A[2..3]* C[0..2]* free 18
    ");
}

#[test]
fn the_last_in_line_gives_way_and_comes_back_before_the_new() {
    let mut trace = Trace::new(SchedulerConfig { prefix_cache: false, ..limits() }, 4);
    trace.add(request(0, 4, 6)).add(request(1, 4, 4)).add(request(2, 4, 2)).steps(1);
    trace.add(request(3, 1, 1));
    assert_snapshot!(trace.finish(), @r"
    A[0..4]* B[0..4]* C[0..4]* free 1
    A[4..5]* B[4..5]* -C free 0
    A[5..6]* B[5..6]* free 0
    A[6..7]* B[6..7]* free 0
    A[7..8]* C[0..5]* free 0
    A[8..9]* D[0..1]* free 0
    ");
}

#[test]
fn what_a_preemption_frees_is_not_given_out_in_the_same_step() {
    let mut trace = Trace::new(limits(), 5);
    // C would fit into what B gives back.
    trace.add(request(0, 8, 3)).add(request(1, 8, 2)).steps(1).add(request(2, 1, 1));
    assert_snapshot!(trace.finish(), @r"
    A[0..8]* B[0..8]* free 1
    A[8..9]* -B free 2
    A[9..10]* free 2
    B[8..9]* C[0..1]* free 1
    ");
}

#[test]
fn nobody_is_let_in_without_room_for_all_its_tokens() {
    let config = SchedulerConfig { max_chunk: 4, prefix_cache: false, ..limits() };
    let mut trace = Trace::new(config, 5);
    trace.add(request(0, 8, 4)).add(request(1, 16, 1)).add(request(2, 1, 1));
    assert_snapshot!(trace.finish(), @r"
    A[0..4] free 4
    A[4..8]* free 3
    A[8..9]* free 2
    A[9..10]* free 2
    A[10..11]* free 2
    B[0..4] C[0..1]* free 3
    B[4..8] free 3
    B[8..12] free 2
    B[12..16]* free 1
    ");
}

#[test]
fn a_prefix_is_found_again_but_never_the_last_token() {
    let mut trace = Trace::new(limits(), 8);
    trace.add(request(0, 8, 2)).finish();
    let again = |id, num_tokens| Request { id: RequestId(id), ..request(0, num_tokens, 1) };
    // B is A; C is longer; D parts from A in its second block; E differs in its first token.
    trace.add(again(1, 8)).add(again(2, 11)).finish();
    let mut d = again(3, 9);
    d.prompt[6] = 999;
    let mut e = again(4, 9);
    e.prompt[0] = 999;
    trace.add(d).add(e);
    assert_snapshot!(trace.finish(), @r"
    A[0..8]* free 6
    A[8..9]* free 5
    B[4..8]* C[8..11]* free 4
    D[4..9]* E[0..9]* free 2
    ");
    let stats = trace.scheduler.stats();
    assert_eq!((stats.prefix_queries, stats.prefix_hits), (4 + 4 + 8 + 8 + 8, 4 + 8 + 4));
    assert_eq!(stats.prompt_tokens, 8 + 8 + 11 + 9 + 9);
}

#[test]
fn an_answer_is_a_prefix_too() {
    let mut trace = Trace::new(limits(), 8);
    trace.add(request(0, 3, 6)).finish();
    let mut prompt = request(0, 3, 1).prompt;
    prompt.extend([500, 500, 500, 500, 500, 500]);
    trace.add(Request { prompt, ..request(1, 1, 1) });
    let output = trace.step().pop().unwrap();
    assert_eq!(num_cached(&output), Some(8));
}

#[test]
fn prefixes_are_not_shared_between_salts_nor_where_the_cache_is_off() {
    let mut trace = Trace::new(limits(), 8);
    trace.add(Request { cache_salt: 7, ..request(0, 8, 1) }).finish();
    let again = |id, cache_salt| Request { id: RequestId(id), cache_salt, ..request(0, 8, 1) };
    trace.add(again(1, 8)).steps(1).add(again(2, 7 << 64)).steps(1).add(again(3, 7));
    assert_snapshot!(trace.finish(), @r"
    A[0..8]* free 6
    B[0..8]* free 6
    C[0..8]* free 6
    D[4..8]* free 6
    ");
    let mut trace = Trace::new(SchedulerConfig { prefix_cache: false, ..limits() }, 8);
    trace.add(again(0, 7)).steps(1).add(again(1, 7));
    assert_snapshot!(trace.finish(), @r"
    A[0..8]* free 6
    B[0..8]* free 6
    ");
    assert_eq!(trace.scheduler.stats().prefix_queries, 0);
}

#[test]
fn a_preempted_sequence_finds_what_is_left_of_its_blocks() {
    let mut trace = Trace::new(limits(), 5);
    trace.add(request(0, 7, 5)).add(request(1, 8, 3)).steps(1);
    assert_snapshot!(trace.finish(), @r"
    A[0..7]* B[0..8]* free 1
    A[7..8]* B[8..9]* free 0
    A[8..9]* -B free 2
    A[9..10]* free 2
    A[10..11]* free 2
    B[8..10]* free 2
    ");
    assert_eq!(trace.scheduler.stats().num_preemptions, 1);
}

#[test]
fn the_urgent_are_let_in_first_and_give_way_last() {
    let config = SchedulerConfig { max_num_seqs: 2, prefix_cache: false, ..limits() };
    let mut trace = Trace::new(config, 4);
    let with_class = |id, class| Request { class, ..request(id, 4, 3) };
    trace
        .add(with_class(0, RouteClass::Reasoning))
        .add(with_class(1, RouteClass::Default))
        .add(with_class(2, RouteClass::Compliance))
        .add(with_class(3, RouteClass::Latency));
    assert_snapshot!(trace.finish(), @r"
    D[0..4]* C[0..4]* free 2
    D[4..5]* C[4..5]* free 0
    D[5..6]* C[5..6]* free 0
    B[0..4]* A[0..4]* free 2
    B[4..5]* A[4..5]* free 0
    B[5..6]* A[5..6]* free 0
    ");
    let mut trace = Trace::new(SchedulerConfig { prefix_cache: false, ..limits() }, 3);
    trace
        .add(with_class(0, RouteClass::Reasoning))
        .steps(1)
        .add(with_class(1, RouteClass::Latency));
    assert_snapshot!(trace.finish(), @r"
    A[0..4]* free 2
    B[0..4]* A[4..5]* free 0
    B[4..5]* -A free 1
    B[5..6]* free 1
    A[0..6]* free 1
    ");
}

#[test]
fn a_request_can_be_aborted_wherever_it_is() {
    let mut trace = Trace::new(SchedulerConfig { prefix_cache: false, ..limits() }, 3);
    trace.add(request(0, 4, 9)).add(request(1, 4, 9)).add(request(2, 8, 1)).steps(2);
    // A runs, B is preempted, C has never run.
    let waiting = trace.scheduler.stats().waiting;
    assert_eq!(waiting, 2, "{}", trace.text);
    for id in [1, 0, 2] {
        let output = trace.scheduler.abort(RequestId(id)).unwrap();
        assert_eq!((&output.token, num_cached(&output)), (&None, None));
        assert_eq!((output.id, output.finish), (RequestId(id), Some(FinishReason::Aborted)));
        trace.scheduler.check();
    }
    assert_eq!(trace.scheduler.abort(RequestId(0)), None);
    assert!(trace.scheduler.is_idle());
    assert_eq!(trace.scheduler.stats().blocks_free, 3);
}

#[test]
fn an_abort_while_the_step_runs_leaves_the_others_their_tokens() {
    let mut trace = Trace::new(limits(), 8);
    trace.add(request(0, 4, 2)).add(request(1, 4, 2));
    let plan = trace.scheduler.schedule();
    trace.scheduler.abort(RequestId(0)).unwrap();
    let outputs = trace.scheduler.apply(&plan, vec![Ok(token(500)), Ok(token(501))]);
    let [output] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((output.id, output.token.as_ref().unwrap().id), (RequestId(1), 501));
    trace.scheduler.check();
}

#[test]
fn what_can_not_be_served_is_refused_at_once() {
    let config = SchedulerConfig { classes: ClassConfig::with_max_waiting(1), ..limits() };
    let mut scheduler = Scheduler::new(config, BlockPool::new(6, BLOCK_SIZE));
    let mut refuse = |request| scheduler.try_add(request, Duration::ZERO).unwrap_err().to_string();
    assert_snapshot!(refuse(request(0, 0, 1)), @"the prompt is empty");
    assert_snapshot!(refuse(request(0, 64, 1)), @"the prompt has 64 tokens, the model takes fewer than 64 with its output");
    assert_snapshot!(refuse(request(0, 21, 1)), @"prompt and output need 6 cache blocks, there are 5");
    assert_snapshot!(refuse(request(0, 10, 12)), @"prompt and output need 6 cache blocks, there are 5");
    assert_snapshot!(refuse(Request { prompt: vec![1, 1000], ..request(0, 1, 1) }), @"`prompt` must be a token id below 1000: 1000");
    scheduler.try_add(request(0, 10, 11), Duration::ZERO).unwrap();
    assert_eq!(scheduler.try_add(request(1, 1, 1), Duration::ZERO), Err(queue_full(1)));
    scheduler.schedule();
    assert_eq!(
        scheduler.try_add(request(0, 1, 1), Duration::ZERO),
        Err(SubmitError::DuplicateId(RequestId(0)))
    );
    scheduler.try_add(request(1, 1, 1), Duration::ZERO).unwrap();
}

#[test]
fn the_longest_sequence_that_is_taken_runs_to_its_end_in_a_full_pool() {
    let mut trace = Trace::new(limits(), 5);
    trace.add(request(0, 10, 11)).finish();
    assert_eq!(trace.scheduler.stats().generation_tokens, 11);
    let mut trace = Trace::new(SchedulerConfig { max_model_len: 12, ..limits() }, 3);
    trace.add(request(0, 10, usize::MAX)).steps(1);
    let finish = trace.step().pop().unwrap().finish;
    assert_eq!(finish, Some(FinishReason::Length));
}

#[test]
fn end_tokens_end_a_sequence() {
    let run = |change: &dyn Fn(&mut Request)| {
        let mut request = request(0, 4, 3);
        request.stop.eos_token_ids = vec![500];
        change(&mut request);
        let mut trace = Trace::new(limits(), 8);
        trace.add(request);
        let mut outputs = Vec::new();
        while !trace.scheduler.is_idle() {
            outputs.extend(trace.step());
        }
        let last = outputs.last().unwrap();
        assert_eq!(last.token.as_ref().unwrap().id, 500);
        assert!(outputs[..outputs.len() - 1].iter().all(|output| output.finish.is_none()));
        (outputs.len(), last.finish.clone().unwrap())
    };
    assert_eq!(run(&|_| ()), (1, FinishReason::Stop));
    assert_eq!(run(&|request| request.stop.ignore_eos = true), (3, FinishReason::Length));
    let both = |request: &mut Request| {
        request.stop.ignore_eos = true;
        request.stop.stop_token_ids = vec![3, 500];
    };
    assert_eq!(run(&both), (1, FinishReason::Stop));
    assert_eq!(run(&|request| request.stop.eos_token_ids.clear()), (3, FinishReason::Length));
}

#[test]
fn cached_tokens_are_told_once_with_the_first_token() {
    let config = SchedulerConfig { max_chunk: 3, ..limits() };
    let mut trace = Trace::new(config, 5);
    trace.add(request(0, 8, 1)).finish();
    trace.add(Request { id: RequestId(1), ..request(0, 12, 3) });
    let told: Vec<_> = (0..5).map(|_| trace.step()).collect();
    let told: Vec<_> = told.iter().map(|outputs| outputs.first().map(num_cached)).collect();
    assert_eq!(told, [None, Some(Some(8)), Some(None), Some(None), None]);
}

#[test]
fn what_led_to_an_error_is_not_found_again() {
    let mut trace = Trace::new(limits(), 8);
    trace.add(request(0, 8, 3)).steps(1).add(Request { id: RequestId(1), ..request(0, 9, 3) });
    let plan = trace.scheduler.schedule();
    let error = SequenceError::NonFiniteLogits { position: 9 };
    let outputs = trace.scheduler.apply(&plan, vec![Err(error.clone()), Ok(token(1))]);
    assert_eq!(outputs[0].finish, Some(FinishReason::Error(error)));
    assert_eq!(outputs[1].finish, None);
    trace.scheduler.check();
    trace.add(Request { id: RequestId(2), ..request(0, 9, 1) });
    trace.steps(1);
    assert!(trace.text.ends_with("B[9..10]* C[0..9]* free 2\n"), "{}", trace.text);
}

#[test]
fn a_step_that_failed_ends_its_sequences_and_keeps_those_that_wait() {
    let mut trace = Trace::new(SchedulerConfig { max_num_seqs: 2, ..limits() }, 8);
    trace.add(request(0, 8, 3)).add(request(1, 8, 3)).add(request(2, 8, 3));
    let plan = trace.scheduler.schedule();
    let error = SequenceError::StepFailed { message: "boom".into() };
    let outputs = trace.scheduler.fail(&plan, &error);
    let ids: Vec<u64> = outputs.iter().map(|output| output.id.0).collect();
    assert_eq!(ids, [0, 1]);
    assert!(outputs.iter().all(|o| o.finish == Some(FinishReason::Error(error.clone()))));
    trace.scheduler.check();
    // K/V of the failed step are not trusted.
    trace.add(Request { id: RequestId(3), ..request(0, 8, 3) });
    trace.text.clear();
    trace.steps(1);
    assert_snapshot!(trace.text, @"C[0..8]* D[0..8]* free 4");
}

#[test]
fn a_cache_that_is_out_of_order_is_emptied_when_nothing_runs() {
    let mut trace = Trace::new(limits(), 8);
    let again = |id| Request { id: RequestId(id), ..request(0, 9, 1) };
    trace.add(again(0)).steps(1);
    trace.scheduler.check_cache();
    assert_eq!(trace.scheduler.stats().cache_faults, 0);
    // A block that nobody owns and that is not free, as after a stray write.
    trace.scheduler.blocks.pool.allocate(1).unwrap();
    trace.add(again(2));
    let plan = trace.scheduler.schedule();
    trace.scheduler.check_cache();
    assert_eq!(trace.scheduler.stats().cache_checks, 1, "not while something runs");
    trace.scheduler.apply(&plan, vec![Ok(token(1))]);
    trace.scheduler.check_cache();
    trace.scheduler.check();
    let stats = trace.scheduler.stats();
    assert_eq!((stats.cache_checks, stats.cache_faults, stats.blocks_free), (2, 1, 8));
    trace.text.clear();
    trace.add(again(3)).steps(1).add(again(4));
    assert_snapshot!(trace.finish(), @r"
    D[0..9]* free 5
    E[8..9]* free 5
    ");
}

#[test]
fn prefixes_are_not_shared_between_packages() {
    let hash_under = |package| {
        let mut seq = crate::Sequence::new(
            request(0, 8, 1),
            crate::policy::Place::new(RouteClass::Default, 0),
        );
        seq.full_block_hashes(2, BLOCK_SIZE, package).to_vec()
    };
    assert_ne!(hash_under(1), hash_under(2));
    assert_ne!(hash_under(1), hash_under(1 << 64));
}
