//! Each rule of `policy.rs` at work: what comes, and the steps that are planned.

use std::time::Duration;

use insta::assert_snapshot;

use super::{BLOCK_SIZE, Trace, limits, request, token};
use crate::{
    BlockPool, Choice, ClassConfig, FinishReason, PerClass, Request, RequestId, RouteClass,
    Scheduler, SchedulerConfig, SequenceError, SubmitError,
};

/// Half is kept for the urgent, a quarter for the rest, nothing for reasoning.
fn halved() -> SchedulerConfig {
    let classes = PerClass::from_fn(|class| ClassConfig {
        max_waiting: 100,
        share_percent: match class {
            RouteClass::Latency => 50,
            RouteClass::Default => 25,
            RouteClass::Compliance | RouteClass::Reasoning => 0,
        },
    });
    SchedulerConfig { classes, ..limits() }
}

fn of_class(class: RouteClass, request: Request) -> Request {
    Request { class, ..request }
}

fn latency(request: Request) -> Request {
    of_class(RouteClass::Latency, request)
}

fn reasoning(request: Request) -> Request {
    of_class(RouteClass::Reasoning, request)
}

#[test]
fn line_later_and_urgent_goes_first() {
    let config = SchedulerConfig { max_num_seqs: 1, ..limits() };
    let mut trace = Trace::new(config, 20);
    trace.add(request(0, 2, 1)).add(reasoning(request(1, 2, 1))).add(request(2, 2, 1));
    trace.add(latency(request(3, 2, 1)));
    assert_snapshot!(trace.finish(), @r"
    D[0..2]* free 19
    A[0..2]* free 19
    C[0..2]* free 19
    B[0..2]* free 19
    ");
}

#[test]
fn first_the_first_in_line_has_a_token_in_every_step() {
    // A is first in line and has no part of the four tokens.
    let config = SchedulerConfig { max_num_batched_tokens: 4, ..halved() };
    let mut trace = Trace::new(config, 40);
    trace.add(reasoning(request(0, 5, 2))).steps(1);
    (0..70).for_each(|_| trace.skip_arrival());
    trace.add(latency(request(1, 8, 1))).add(request(2, 8, 1));
    assert_snapshot!(trace.finish(), @r"
    A[0..4] free 39
    A[4..5]* B[0..2] C[0..1] free 36
    A[5..6]* B[2..4] C[1..2] free 36
    B[4..7] C[2..3] free 37
    B[7..8]* C[3..6] free 36
    C[6..8]* free 38
    ");
}

#[test]
fn shares_of_a_step_go_to_the_classes_before_the_line() {
    // Of eight tokens four are kept for the urgent and two for the rest; two go by the line.
    let config = SchedulerConfig { max_num_batched_tokens: 8, ..halved() };
    let mut trace = Trace::new(config, 60);
    trace.add(reasoning(request(0, 30, 1))).steps(1).add(request(1, 12, 1));
    trace.add(latency(request(2, 12, 1)));
    assert_snapshot!(trace.finish(), @r"
    A[0..8] free 58
    C[0..6] B[0..2] free 55
    C[6..12]* B[2..4] free 54
    B[4..12]* free 55
    A[8..16] free 56
    A[16..24] free 54
    A[24..30]* free 52
    ");
}

#[test]
fn lending_what_a_class_leaves_is_used_by_others() {
    let config = SchedulerConfig { max_num_batched_tokens: 8, ..halved() };
    let mut trace = Trace::new(config, 20);
    trace.add(reasoning(request(0, 16, 1))).add(reasoning(request(1, 8, 1)));
    assert_snapshot!(trace.finish(), @r"
    A[0..8] free 18
    A[8..16]* free 16
    B[0..8]* free 18
    ");
}

#[test]
fn lending_blocks_are_taken_back_from_the_last_of_those_with_more_than_their_part() {
    let mut trace = Trace::new(SchedulerConfig { prefix_cache: false, ..halved() }, 8);
    // A, which is first in line, and B have all blocks, of which four are kept for the urgent.
    trace.add(request(0, 16, 3)).add(request(1, 12, 3)).steps(1);
    (0..20).for_each(|_| trace.skip_arrival());
    trace.add(latency(request(2, 8, 2)));
    assert_snapshot!(trace.finish(), @r"
    A[0..16]* B[0..12]* free 1
    A[16..17]* C[0..8]* -B free 1
    A[17..18]* C[8..9]* free 0
    B[0..13]* free 4
    B[13..14]* free 4
    ");
}

#[test]
fn lending_places_are_taken_back_too() {
    let config = SchedulerConfig { max_num_seqs: 2, ..halved() };
    let mut trace = Trace::new(config, 20);
    trace.add(request(0, 3, 4)).add(request(1, 3, 4)).steps(1);
    (0..20).for_each(|_| trace.skip_arrival());
    trace.add(latency(request(2, 3, 2)));
    assert_snapshot!(trace.finish(), @r"
    A[0..3]* B[0..3]* free 18
    A[3..4]* C[0..3]* -B free 18
    A[4..5]* C[3..4]* free 17
    A[5..6]* B[0..4]* free 17
    B[4..5]* free 18
    B[5..6]* free 18
    ");
}

#[test]
fn order_single_tokens_go_before_prompts_and_prompts_before_those_that_wait() {
    let config = SchedulerConfig { max_num_batched_tokens: 3, ..limits() };
    let mut trace = Trace::new(config, 20);
    trace.add(request(0, 1, 4)).add(request(1, 5, 1)).steps(1).add(request(2, 2, 1));
    assert_snapshot!(trace.finish(), @r"
    A[0..1]* B[0..2] free 18
    A[1..2]* B[2..4] free 18
    A[2..3]* B[4..5]* C[0..1] free 16
    A[3..4]* C[1..2]* free 18
    ");
}

#[test]
fn order_nobody_goes_past_one_of_its_class_nor_past_anybody_into_what_is_lent() {
    let mut trace = Trace::new(SchedulerConfig { prefix_cache: false, ..halved() }, 8);
    trace.add(reasoning(request(0, 20, 2))).steps(1);
    // B needs four blocks and there are three. C is behind it; D has a part of its own.
    trace.add(reasoning(request(1, 16, 1))).add(reasoning(request(2, 1, 1)));
    trace.add(request(3, 1, 1));
    assert_snapshot!(trace.finish(), @r"
    A[0..20]* free 3
    D[0..1]* A[20..21]* free 1
    B[0..16]* C[0..1]* free 3
    ");
}

#[test]
fn prefixes_those_that_another_one_computes_are_waited_for() {
    let config = SchedulerConfig { max_chunk: 8, max_num_batched_tokens: 12, ..limits() };
    let mut trace = Trace::new(config, 20);
    // B begins like A and parts from it after 16 tokens; C has nothing in common with them.
    let mut b = request(1, 18, 1);
    b.prompt[..16].copy_from_slice(&request(0, 16, 1).prompt);
    trace.add(request(0, 20, 1)).add(b).add(request(2, 4, 2));
    assert_snapshot!(trace.finish(), @r"
    A[0..8] C[0..4]* free 17
    A[8..16] C[4..5]* free 14
    A[16..20]* B[16..18]* free 14
    ");
}

#[test]
fn prefixes_nobody_waits_for_one_behind_it_in_line() {
    let config = SchedulerConfig { max_chunk: 4, ..limits() };
    let mut trace = Trace::new(config, 20);
    let same = Request { id: RequestId(1), ..request(0, 12, 1) };
    trace.add(reasoning(request(0, 12, 1))).steps(1).add(latency(same));
    assert_snapshot!(trace.finish(), @r"
    A[0..4] free 19
    B[4..8] A[4..8] free 17
    B[8..12]* A[8..12]* free 16
    ");
}

#[test]
fn prefixes_are_not_waited_for_when_the_one_that_computes_them_is_gone() {
    let config = SchedulerConfig { max_chunk: 4, ..limits() };
    let mut trace = Trace::new(config, 20);
    trace.add(request(0, 12, 1)).add(Request { id: RequestId(1), ..request(0, 12, 1) }).steps(1);
    trace.scheduler.abort(RequestId(0)).unwrap();
    assert_snapshot!(trace.finish(), @r"
    A[0..4] free 19
    B[4..8] free 18
    B[8..12]* free 17
    ");
}

#[test]
fn choices_share_the_prompt_and_copy_its_begun_block() {
    let mut trace = Trace::new(limits(), 20);
    let choices = [1, 2].map(|id| Choice { id: RequestId(id), seed: id }).to_vec();
    trace.add(Request { choices, ..request(0, 6, 3) });
    // The last of the three writes into the block that the others have left.
    assert_snapshot!(trace.finish(), @r"
    A[0..6]* B[0..6]= C[0..6]= free 18
    A[6..7]* B[6..7]* C[6..7]* 2>3 2>4 free 16
    A[7..8]* B[7..8]* C[7..8]* free 16
    ");
    let full = [4, 5].map(|id| Choice { id: RequestId(id), seed: id }).to_vec();
    trace.text.clear();
    trace.add(Request { choices: full, ..request(3, 8, 2) });
    assert_snapshot!(trace.finish(), @r"
    D[0..8]* E[0..8]= F[0..8]= free 18
    D[8..9]* E[8..9]* F[8..9]* free 15
    ");
}

#[test]
fn choices_without_a_place_wait_and_find_the_prompt() {
    let mut trace = Trace::new(SchedulerConfig { max_num_seqs: 2, ..limits() }, 20);
    let choices = [1, 2].map(|id| Choice { id: RequestId(id), seed: id }).to_vec();
    trace.add(Request { choices, ..request(0, 6, 2) });
    assert_snapshot!(trace.finish(), @r"
    A[0..6]* B[0..6]= free 18
    A[6..7]* B[6..7]* 2>3 free 17
    C[4..6]* free 18
    C[6..7]* free 18
    ");
}

#[test]
fn a_choice_can_be_aborted_alone_at_any_time() {
    let choices = [1, 2].map(|id| Choice { id: RequestId(id), seed: id }).to_vec();
    // Before, in and after the step that forks, by each of the three.
    for (num_steps, aborted) in [0, 1, 2, 3].into_iter().flat_map(|n| (0..3).map(move |id| (n, id)))
    {
        let config = SchedulerConfig { max_chunk: 4, ..limits() };
        let mut trace = Trace::new(config, 20);
        let deadline = Some(Duration::from_secs(9));
        trace.add(Request { choices: choices.clone(), deadline, ..request(0, 6, 3) });
        trace.steps(num_steps);
        let output = trace.scheduler.abort(RequestId(aborted)).unwrap();
        assert_eq!((output.id.0, output.finish), (aborted, Some(FinishReason::Aborted)));
        trace.scheduler.check();
        assert_eq!(trace.scheduler.abort(RequestId(aborted)), None);
        let mut ended = Vec::new();
        while !trace.scheduler.is_idle() {
            ended.extend(trace.step().into_iter().filter(|o| o.finish.is_some()).map(|o| o.id.0));
        }
        let others: Vec<u64> = (0..3).filter(|id| *id != aborted).collect();
        assert_eq!(ended, others, "{num_steps}");
        assert_eq!(trace.scheduler.stats().blocks_free, 20);
    }
}

#[test]
fn choices_end_with_their_prompt() {
    let choices = [1, 2].map(|id| Choice { id: RequestId(id), seed: id }).to_vec();
    let mut trace = Trace::new(SchedulerConfig { max_chunk: 4, ..limits() }, 20);
    trace.add(Request { choices, ..request(0, 6, 3) });
    let plan = trace.scheduler.schedule();
    let error = SequenceError::StepFailed { message: "boom".into() };
    let ids: Vec<u64> = trace.scheduler.fail(&plan, &error).iter().map(|o| o.id.0).collect();
    assert_eq!(ids, [0, 1, 2]);
    assert!(trace.scheduler.is_idle());
    trace.scheduler.check();
}

/// A scheduler whose steps take ten milliseconds and one for each token.
fn measured() -> Scheduler {
    let config = SchedulerConfig { max_num_batched_tokens: 10, ..limits() };
    let mut scheduler = Scheduler::new(config, BlockPool::new(40, BLOCK_SIZE));
    for num_tokens in [1, 10, 2] {
        scheduler.measured(num_tokens, Duration::from_millis(10 + num_tokens as u64));
    }
    scheduler
}

fn until(millis: u64, request: Request) -> Request {
    Request { deadline: Some(Duration::from_millis(millis)), ..request }
}

const NOW: Duration = Duration::from_secs(1);

#[test]
fn deadlines_that_cannot_be_met_are_refused_before_the_prompt_is_computed() {
    let mut scheduler = measured();
    // Twenty tokens are two steps of ten milliseconds and one for each token: 40.
    let error = scheduler.try_add(until(1040, request(0, 20, 1)), NOW).unwrap_err();
    assert_snapshot!(error, @"the first token would come after the deadline: in 40 ms instead of 40 ms");
    scheduler.try_add(until(1041, request(0, 20, 1)), NOW).unwrap();
    // The first of the class makes it four steps and 40 tokens for the second.
    let error = scheduler.try_add(until(1080, request(1, 20, 1)), NOW).unwrap_err();
    assert!(matches!(error, SubmitError::DeadlineUnmeetable { .. }));
    scheduler.try_add(until(1081, request(1, 20, 1)), NOW).unwrap();
    // Other classes count only with the tokens that are kept for them: two and a half a step.
    scheduler.try_add(latency(until(1100, request(2, 20, 1))), NOW).unwrap();
    scheduler.check();
}

#[test]
fn deadlines_that_pass_while_a_request_waits_end_it_with_the_reason() {
    let mut scheduler = measured();
    scheduler.try_add(until(1500, request(0, 20, 1)), NOW).unwrap();
    scheduler.try_add(until(1300, request(1, 20, 1)), NOW).unwrap();
    let at = |scheduler: &mut Scheduler, millis| scheduler.expire(Duration::from_millis(millis));
    assert_eq!(at(&mut scheduler, 1259), []);
    // Its own prompt takes 40 milliseconds.
    let output = at(&mut scheduler, 1280).pop().unwrap();
    let Some(FinishReason::Error(SequenceError::Refused(error))) = output.finish else { panic!() };
    assert_snapshot!(error, @"the first token would come after the deadline: in 40 ms instead of 20 ms");
    let output = at(&mut scheduler, 1600).pop().unwrap();
    let Some(FinishReason::Error(error)) = output.finish else { panic!() };
    assert_snapshot!(error, @"the deadline has passed before the first token: 100 ms ago");
    assert!(scheduler.is_idle());
    scheduler.check();
}

#[test]
fn deadlines_hold_for_choices_without_a_place() {
    let mut trace = Trace::new(SchedulerConfig { max_num_seqs: 2, ..limits() }, 20);
    let choices = [1, 2].map(|id| Choice { id: RequestId(id), seed: id }).to_vec();
    trace.add(Request { choices, ..until(500, request(0, 6, 9)) }).steps(2);
    let outputs = trace.scheduler.expire(Duration::from_millis(500));
    assert_eq!(outputs.iter().map(|output| output.id.0).collect::<Vec<_>>(), [2]);
    trace.scheduler.check();
}

#[test]
fn deadlines_are_those_of_the_first_token() {
    let mut scheduler = measured();
    scheduler.try_add(until(1500, request(0, 20, 3)), NOW).unwrap();
    scheduler.try_add(until(1500, request(1, 20, 3)), NOW).unwrap();
    for _ in 0..2 {
        let plan = scheduler.schedule();
        let rows = plan.scheduled.iter().filter(|item| 0 < item.num_rows).map(|_| Ok(token(1)));
        scheduler.apply(&plan, rows.collect());
        scheduler.check();
    }
    // A has its first token; B runs and has none.
    scheduler.schedule();
    let output = scheduler.expire(Duration::from_millis(1500));
    assert_eq!(output.iter().map(|output| output.id.0).collect::<Vec<_>>(), [1]);
    scheduler.check();
    assert_eq!(scheduler.expire(Duration::from_secs(1000)), []);
    assert!(scheduler.sequence(RequestId(0)).is_some());
}

#[test]
fn queues_of_classes_are_full_one_by_one_and_choices_count() {
    let config = SchedulerConfig { classes: ClassConfig::with_max_waiting(3), ..limits() };
    let mut scheduler = Scheduler::new(config, BlockPool::new(40, BLOCK_SIZE));
    let choices = vec![Choice { id: RequestId(8), seed: 1 }];
    let two = Request { choices, ..request(0, 4, 4) };
    scheduler.try_add(two.clone(), NOW).unwrap();
    assert_eq!(scheduler.try_add(two, NOW), Err(SubmitError::DuplicateId(RequestId(0))));
    let choices = vec![Choice { id: RequestId(1), seed: 1 }];
    let twice = Request { choices: choices.clone(), ..request(1, 4, 4) };
    assert_eq!(scheduler.try_add(twice, NOW), Err(SubmitError::DuplicateId(RequestId(1))));
    let two = Request { choices, ..request(2, 4, 4) };
    let error = scheduler.try_add(two, NOW).unwrap_err();
    assert_snapshot!(error, @"the queue of the class is full: default: 3");
    scheduler.try_add(request(3, 4, 4), NOW).unwrap();
    scheduler.try_add(latency(request(4, 4, 4)), NOW).unwrap();
    let stats = scheduler.stats();
    assert_eq!((stats.waiting, stats.classes[RouteClass::Default].waiting), (4, 3));
    scheduler.measured(1, Duration::from_millis(10));
    let error = scheduler.try_add(request(5, 4, 4), NOW).unwrap_err();
    let SubmitError::QueueFull { retry_after, .. } = error else { panic!("{error}") };
    assert_eq!(retry_after, Some(Duration::from_millis(10)));
}

#[test]
fn prompts_that_are_scored_share_the_rows_of_a_step() {
    // Each token that is followed by one of the prompt needs a row of logits.
    let config = SchedulerConfig {
        max_num_batched_tokens: 600,
        max_chunk: 600,
        ..crate::testing::config(1000, 300)
    };
    let mut trace = Trace::new(config, 400);
    let scored = |id| Request { prompt_logprobs: Some(0), ..request(id, 200, 1) };
    trace.add(scored(0)).add(scored(1)).add(request(2, 200, 1));
    assert_snapshot!(trace.finish(), @r"
    A[0..200]*200 B[0..56]*56 C[0..200]* free 286
    B[56..200]*144 free 350
    ");
}

#[test]
fn a_request_that_goes_on_may_find_more_than_its_prompt() {
    let mut trace = Trace::new(limits(), 40);
    let first = request(0, 16, 4);
    let (prompt, generated) = first.prompt.split_at(4);
    let again =
        Request { prompt: prompt.to_vec(), generated: generated.to_vec(), ..request(1, 4, 13) };
    trace.add(first).finish();
    trace.add(again);
    trace.scheduler.check();
    trace.finish();
    assert!(trace.text.contains("B[12..16]*"), "{}", trace.text);
}
