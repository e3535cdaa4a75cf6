//! The task of one package: starts its worker, routes messages, judges hangs, restarts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use super::package::{Command, PackageSpec, Published};
use super::process::WorkerProcess;
use super::snapshots::{Keeper, Wish};
use super::state::{PackageState, StateKind};
use super::tracked::Tracked;
use crate::error::ApiError;
use crate::ipc::{
    ErrorKind, Event, FrameError, FromWorker, PROTOCOL_VERSION, RequestKey, ToWorker, Tokenized,
    WorkerError,
};

const PING_EVERY: Duration = Duration::from_millis(200);
/// Silence after which the package is reported as unresponsive.
const SUSPECT_AFTER: Duration = Duration::from_millis(800);
/// Deaths in a row after which a package is given up.
const MAX_DEATHS: u32 = 5;
/// A worker that served for this long starts the count anew.
const HEALTHY_SPELL: Duration = Duration::from_mins(1);
const MAX_BACK_OFF: Duration = Duration::from_secs(30);
/// Time for a worker to exit once its connection is over.
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// How a worker's service ended.
enum Ended {
    /// It was asked to.
    Drained,
    /// The package cannot be loaded; trying again would fail again.
    Unloadable(WorkerError),
    /// It died or was killed.
    Died(String),
    /// It computed with damaged weights, so its answers are worth nothing.
    Damaged(String),
}

struct Task {
    spec: PackageSpec,
    inbox: mpsc::UnboundedReceiver<Command>,
    published: Published,
    snapshots: Keeper,
    generations: HashMap<RequestKey, Tracked>,
    questions: HashMap<RequestKey, oneshot::Sender<Result<Tokenized, ApiError>>>,
    next_question: RequestKey,
    draining: bool,
}

/// Serves the package until it is drained.
pub(super) async fn run(
    spec: PackageSpec,
    inbox: mpsc::UnboundedReceiver<Command>,
    published: Published,
) {
    let state = published.snapshot.clone();
    let snapshots = Keeper::new(spec.snapshots.clone(), &spec.load.source, state);
    let mut task = Task {
        spec,
        inbox,
        published,
        snapshots,
        generations: HashMap::new(),
        questions: HashMap::new(),
        next_question: 0,
        draining: false,
    };
    task.run().await;
}

impl Task {
    async fn run(&mut self) {
        let mut deaths = 0;
        loop {
            let started = Instant::now();
            let ended = self.serve_once().await;
            match ended {
                Ended::Drained => break,
                Ended::Unloadable(error) => {
                    tracing::error!(
                        package = self.spec.name,
                        code = error.code,
                        "{}",
                        error.message
                    );
                    self.fail_all(&error);
                    self.set_state(PackageState::Failed(error.into()));
                    self.refuse_until(None).await;
                    break;
                }
                Ended::Damaged(reason) => {
                    tracing::error!(package = self.spec.name, "{reason}");
                    self.fail_all(&damaged(&reason));
                    if self.draining || self.give_up_or_wait(1, reason).await {
                        break;
                    }
                }
                Ended::Died(reason) => {
                    self.published.metrics.worker_died();
                    tracing::warn!(package = self.spec.name, "the worker died: {reason}");
                    self.interrupt(&crashed(&reason));
                    if HEALTHY_SPELL <= started.elapsed() {
                        deaths = 0;
                    }
                    deaths += 1;
                    if self.draining {
                        break;
                    }
                    if self.give_up_or_wait(deaths, reason).await {
                        break;
                    }
                }
            }
        }
        self.fail_all(&crashed("the node stops"));
        self.set_state(PackageState::Stopped);
    }

    /// Waits before the next start; true if the package was drained meanwhile.
    async fn give_up_or_wait(&mut self, deaths: u32, reason: String) -> bool {
        if MAX_DEATHS <= deaths {
            self.fail_all(&crashed(&reason));
            let message = format!("its worker died {deaths} times in a row: {reason}");
            self.set_state(PackageState::Failed(ApiError::model("worker_defunct", message)));
            return self.refuse_until(None).await;
        }
        let after = Duration::from_millis(100 << (deaths - 1)).min(MAX_BACK_OFF);
        self.set_state(PackageState::Restarting { attempt: deaths, reason, after });
        self.refuse_until(Some(Instant::now() + after)).await
    }

    /// Refuses commands until the deadline (false) or until drained (true).
    async fn refuse_until(&mut self, deadline: Option<Instant>) -> bool {
        let sleep = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return false,
                command = self.inbox.recv() => match command {
                    None | Some(Command::Drain) => return true,
                    Some(command) => self.refuse(command),
                },
            }
        }
    }

    /// Runs one worker from its start to its end.
    async fn serve_once(&mut self) -> Ended {
        self.spec.load.snapshot = self.snapshots.prepare().await;
        let mut worker = match WorkerProcess::start(&self.spec.program) {
            Ok(worker) => worker,
            Err(error) => return Ended::Died(format!("it could not be started: {error}")),
        };
        tracing::debug!(package = self.spec.name, pid = worker.id(), "worker started");
        let ended = self.converse(&mut worker).await;
        let grace = match ended {
            Ended::Died(_) | Ended::Damaged(_) => Duration::ZERO,
            Ended::Drained | Ended::Unloadable(_) => EXIT_GRACE,
        };
        match ended {
            Ended::Died(reason) if reason.is_empty() => Ended::Died(worker.end(EXIT_GRACE).await),
            other => {
                worker.end(grace).await;
                other
            }
        }
    }

    /// Passes messages until the service ends. `Died("")` leaves the reason to the exit status.
    async fn converse(&mut self, worker: &mut WorkerProcess) -> Ended {
        let load = ToWorker::Load(Box::new(self.spec.load.clone()));
        if let Err(error) = worker.send(&load) {
            return Ended::Died(error.to_string());
        }
        if self.draining {
            return Ended::Drained;
        }
        let mut ticks = tokio::time::interval(PING_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let step = tokio::select! {
                biased;
                message = worker.receive() => {
                    heard = Instant::now();
                    match message {
                        Ok(message) => self.on_message(message, worker),
                        // A worker that dies with pings unread resets the connection.
                        Err(FrameError::Closed | FrameError::Io(_)) => {
                            Some(Ended::Died(String::new()))
                        }
                        Err(error) => Some(Ended::Died(error.to_string())),
                    }
                }
                command = self.inbox.recv() => self.on_command(command, worker),
                Some(wish) = self.snapshots.next() => Self::on_wish(wish, worker),
                _ = ticks.tick() => self.on_tick(heard, worker),
            };
            if let Some(ended) = step {
                return ended;
            }
            if self.draining && self.generations.is_empty() && self.questions.is_empty() {
                // A worker that is gone already needs no word.
                let _ = worker.send(&ToWorker::Shutdown);
                return Ended::Drained;
            }
        }
    }

    fn on_message(&mut self, message: FromWorker, worker: &WorkerProcess) -> Option<Ended> {
        match message {
            FromWorker::Hello { protocol } if protocol != PROTOCOL_VERSION => {
                return Some(Ended::Died(format!("it speaks protocol {protocol}")));
            }
            FromWorker::Hello { .. } => {}
            FromWorker::Loading { stage, done, total } => {
                self.set_state(PackageState::Loading { stage, done, total });
            }
            FromWorker::Ready(info) => {
                tracing::info!(package = self.spec.name, millis = info.load_millis, "ready");
                self.published.info.send_replace(Some(Arc::new(*info)));
                self.set_state(self.serving());
                return self.resume(worker);
            }
            FromWorker::Snapshot(news) => {
                let wish = self.snapshots.on_news(news)?;
                return Self::on_wish(wish, worker);
            }
            FromWorker::LoadFailed(error) => return Some(Ended::Unloadable(error)),
            FromWorker::Step { events, stats } => {
                self.published.stats.send_replace(stats);
                let mut generations = events.iter().map(|(key, _)| self.generations.get(key));
                let _one_write = generations.find_map(|one| one.and_then(Tracked::hold));
                for (key, event) in events {
                    self.deliver(key, &event);
                }
            }
            FromWorker::Tokens { key, result } => {
                if let Some(answer) = self.questions.remove(&key) {
                    // A caller that left needs no answer.
                    let _ = answer.send(result.map_err(ApiError::from));
                }
            }
            FromWorker::Pong { step_millis, render_millis, .. } => {
                return self.judge(step_millis, render_millis);
            }
        }
        None
    }

    fn on_wish(wish: Wish, worker: &WorkerProcess) -> Option<Ended> {
        match wish {
            Wish::Write(package) => {
                let sent = worker.send(&ToWorker::WriteSnapshot { package });
                sent.err().map(|error| Ended::Died(error.to_string()))
            }
            Wish::Discard(reason) => Some(Ended::Damaged(reason)),
        }
    }

    fn judge(&self, step_millis: u64, render_millis: u64) -> Option<Ended> {
        if self.published.state.borrow().kind() == StateKind::Unresponsive {
            self.set_state(self.serving());
        }
        let over = |millis, limit: Duration| limit < Duration::from_millis(millis);
        if over(step_millis, self.spec.step_timeout) {
            return Some(Ended::Died(format!(
                "a step took longer than {:?}",
                self.spec.step_timeout
            )));
        }
        if over(render_millis, self.spec.render_timeout) {
            let limit = self.spec.render_timeout;
            return Some(Ended::Died(format!("preparing a prompt took longer than {limit:?}")));
        }
        None
    }

    fn on_command(&mut self, command: Option<Command>, worker: &WorkerProcess) -> Option<Ended> {
        let sent = match command {
            None | Some(Command::Drain) => {
                self.draining = true;
                if self.published.state.borrow().kind() != StateKind::Ready {
                    return Some(Ended::Drained);
                }
                self.set_state(PackageState::Draining);
                Ok(())
            }
            Some(command @ (Command::Submit(..) | Command::Tokenize(..))) if self.draining => {
                self.refuse(command);
                Ok(())
            }
            Some(Command::Submit(submit, sinks)) => {
                let sent = worker.send(&ToWorker::Submit(submit.clone()));
                for (submit, sink) in submit.split().zip(sinks) {
                    match &sent {
                        Ok(()) => {
                            self.generations.insert(submit.key, Tracked::new(submit, sink));
                        }
                        Err(error) => sink.fail(oversized(&error.to_string())),
                    }
                }
                Ok(())
            }
            Some(command @ Command::Cancel(_)) if !self.has_submitted() => {
                self.refuse(command);
                Ok(())
            }
            Some(Command::Cancel(key)) => worker.send(&ToWorker::Cancel(key)),
            Some(Command::Tokenize(input, answer)) => {
                let key = self.next_question;
                self.next_question += 1;
                self.questions.insert(key, answer);
                worker.send(&ToWorker::Tokenize { key, input })
            }
        };
        sent.err().map(|error| Ended::Died(error.to_string()))
    }

    fn on_tick(&mut self, heard: Instant, worker: &WorkerProcess) -> Option<Ended> {
        let silence = heard.elapsed();
        if self.spec.hang_timeout < silence {
            return Some(Ended::Died(format!(
                "it did not answer for {:?}",
                self.spec.hang_timeout
            )));
        }
        let serving = self.published.state.borrow().kind() == StateKind::Ready;
        if SUSPECT_AFTER < silence && serving {
            self.set_state(PackageState::Unresponsive);
        }
        let nonce = silence.as_millis() as u64;
        worker.send(&ToWorker::Ping { nonce }).err().map(|error| Ended::Died(error.to_string()))
    }

    fn deliver(&mut self, key: RequestKey, event: &Event) {
        let Some(generation) = self.generations.get_mut(&key) else { return };
        let last = event.is_final();
        generation.append(event, &self.published.metrics);
        if last {
            self.generations.remove(&key);
        }
    }

    /// Whether the worker has been given what it is to generate.
    fn has_submitted(&self) -> bool {
        let state = self.published.state.borrow().kind();
        !matches!(state, StateKind::Loading | StateKind::Restarting)
    }

    fn serving(&self) -> PackageState {
        if self.draining { PackageState::Draining } else { PackageState::Ready }
    }

    /// Gives a new worker what the last one left, in the order in which it came.
    fn resume(&self, worker: &WorkerProcess) -> Option<Ended> {
        let mut left: Vec<(RequestKey, &Tracked)> =
            self.generations.iter().map(|(key, generation)| (*key, generation)).collect();
        left.sort_unstable_by_key(|(key, _)| *key);
        for (_, generation) in left {
            let submit = ToWorker::Submit(Box::new(generation.submission()));
            if let Err(error) = worker.send(&submit) {
                return Some(Ended::Died(error.to_string()));
            }
            self.published.metrics.resumed();
        }
        None
    }

    fn refuse(&mut self, command: Command) {
        let refusal = self.published.state.borrow().refusal(&self.spec.name);
        let error = refusal.unwrap_or_else(|| {
            ApiError::node("draining", "the package takes no new requests".to_owned())
        });
        match command {
            Command::Submit(_, sinks) => {
                let refusal = WorkerError::internal(error.code, error.message);
                sinks.into_iter().for_each(|sink| sink.fail(refusal.clone()));
            }
            Command::Tokenize(_, answer) => {
                // A caller that left needs no answer.
                let _ = answer.send(Err(error));
            }
            Command::Cancel(key) => {
                if let Some(event) = self.generations.get(&key).map(Tracked::cancelled) {
                    self.deliver(key, &event);
                }
            }
            Command::Drain => {}
        }
    }

    /// Keeps what can go on with another worker, and ends the rest.
    fn interrupt(&mut self, error: &WorkerError) {
        let metrics = &self.published.metrics;
        self.generations.retain(|_, generation| {
            let survives = generation.survives();
            if !survives {
                generation.append(&Event::Failed(error.clone()), metrics);
            }
            survives
        });
        self.fail_questions(error);
    }

    fn fail_all(&mut self, error: &WorkerError) {
        for (_, mut generation) in self.generations.drain() {
            generation.append(&Event::Failed(error.clone()), &self.published.metrics);
        }
        self.fail_questions(error);
    }

    fn fail_questions(&mut self, error: &WorkerError) {
        for (_, answer) in self.questions.drain() {
            // A caller that left needs no answer.
            let _ = answer.send(Err(error.clone().into()));
        }
    }

    fn set_state(&self, state: PackageState) {
        self.published.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
    }
}

fn crashed(reason: &str) -> WorkerError {
    WorkerError {
        kind: ErrorKind::Internal,
        code: "worker_crashed".to_owned(),
        message: format!("the worker of the package died while the request ran: {reason}"),
        hint: Some("send the request again".to_owned()),
        param: None,
    }
}

fn damaged(reason: &str) -> WorkerError {
    let message = format!("the weights of the package were damaged: {reason}");
    let hint = Some("send the request again".to_owned());
    WorkerError { hint, ..WorkerError::internal("weights_damaged", message) }
}

fn oversized(reason: &str) -> WorkerError {
    WorkerError {
        kind: ErrorKind::InvalidRequest,
        code: "request_too_large".to_owned(),
        message: format!("the request does not fit a message to the worker: {reason}"),
        hint: None,
        param: None,
    }
}
