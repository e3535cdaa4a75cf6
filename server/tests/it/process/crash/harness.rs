//! Kills a node with SIGKILL under load, starts it again on the same directory, and compares every
//! stream with that of a node that nobody disturbed. Threads and sockets and no runtime, so that a
//! program that does this for hours can share it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Far longer than anything takes; only a run that would hang meets it.
const DEADLINE: Duration = Duration::from_secs(20);

/// What to do.
pub(crate) struct Crash {
    /// The `pinion` binary.
    pub(crate) program: PathBuf,
    /// Where streams are kept.
    pub(crate) directory: PathBuf,
    /// Times that the node is killed.
    pub(crate) rounds: u64,
    /// Streams in each round.
    pub(crate) streams: u64,
    /// Decides when it is killed.
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Streams that were read on from a later node.
    pub(crate) resumed: u64,
    /// Streams that had not begun, and were asked for again.
    pub(crate) asked_again: u64,
    /// Events of all streams.
    pub(crate) events: u64,
    /// Completion tokens of each stream, by its id.
    pub(crate) usage: BTreeMap<String, u32>,
}

/// The node that runs now, for the clients of a round.
#[derive(Default)]
struct Place {
    state: Mutex<Now>,
    changed: Condvar,
}

#[derive(Default)]
struct Now {
    address: Option<SocketAddr>,
    /// Nodes that were started, and that were ready.
    started: u64,
    ready: u64,
    /// Events that clients have read.
    events: u64,
    finished: u64,
    /// Why there will be no more nodes.
    failed: Option<String>,
}

/// What a client has read of its stream.
#[derive(Default)]
struct Seen {
    id: Option<String>,
    events: Vec<String>,
    resumed: bool,
    asked_again: bool,
}

impl Crash {
    /// Runs all rounds; an error says which promise was broken.
    pub(crate) fn run(&self) -> Result<Report, String> {
        let place = Place::default();
        let mut node = self.start(&place)?;
        let all = u64::MAX;
        let (undisturbed, ()) = self.round(&place, "undisturbed", all, || Ok(()))?;
        let expected: Vec<Vec<String>> = undisturbed.iter().map(Seen::comparable).collect();
        let total: u64 = expected.iter().map(|events| events.len() as u64).sum();
        let mut report = Report::default();
        undisturbed.iter().try_for_each(|seen| report.add(seen))?;
        let mut random = Random(self.seed);
        for round in 0..self.rounds {
            let kill_after = 1 + random.below(total);
            let (worker_first, name) = (random.below(2) == 0, format!("round {round}"));
            let (seen, ()) = self.round(&place, &name, kill_after, || {
                kill(&mut node, worker_first);
                node = self.start(&place)?;
                Ok(())
            })?;
            for (index, (seen, expected)) in seen.iter().zip(&expected).enumerate() {
                if seen.comparable() != *expected {
                    let (found, id) = (seen.comparable(), &seen.id);
                    return Err(format!(
                        "{name}: stream {index} ({id:?}) differs: {found:#?}, not {expected:#?}"
                    ));
                }
                report.add(seen)?;
            }
        }
        kill(&mut node, false);
        Ok(report)
    }

    /// Opens all streams, does something once so many events were read, and reads all to the end.
    fn round<T>(
        &self,
        place: &Place,
        name: &str,
        after: u64,
        act: impl FnOnce() -> Result<T, String>,
    ) -> Result<(Vec<Seen>, T), String> {
        {
            let mut now = place.state.lock();
            (now.events, now.finished) = (0, 0);
        }
        thread::scope(|scope| {
            let failed = |error: String| format!("{name}: {error}");
            let clients: Vec<_> = (0..self.streams)
                .map(|index| scope.spawn(move || client(place, index, &format!("{name}-{index}"))))
                .collect();
            let enough = |now: &Now| after <= now.events || self.streams <= now.finished;
            place.wait("read", enough).map_err(failed)?;
            // Clients that wait for the next node must hear that there is none.
            let acted =
                act().inspect_err(|why| place.change(|now| now.failed = Some(why.clone())))?;
            let seen = clients.into_iter().map(|client| client.join().expect("no panic"));
            Ok((seen.collect::<Result<Vec<Seen>, String>>()?, acted))
        })
    }

    /// Starts a node; a thread says when it is ready.
    fn start(&self, place: &Place) -> Result<Child, String> {
        let mut child = Command::new(&self.program)
            .args(["serve", "--listen", "127.0.0.1:0", "--stream-ttl", "12h", "--stream-dir"])
            .arg(&self.directory)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut log = String::new();
        let mut line_with = |text: &str| {
            for line in lines.by_ref().map_while(Result::ok) {
                if line.contains(text) {
                    return Ok(line);
                }
                log.push_str(&line);
                log.push('\n');
            }
            Err(format!("the node ended: {log}"))
        };
        let line = line_with("listening on http://")?;
        let address = line.rsplit('/').next().and_then(|text| text.parse().ok());
        place.change(|now| {
            now.started += 1;
            now.address = address;
        });
        line_with(": ready in ")?;
        place.change(|now| now.ready = now.started);
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(child)
    }
}

impl Place {
    fn change(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.state.lock());
        self.changed.notify_all();
    }

    fn wait(&self, what: &str, holds: impl Fn(&Now) -> bool) -> Result<(u64, SocketAddr), String> {
        let mut now = self.state.lock();
        let goes_on = |now: &mut Now| now.failed.is_none() && !holds(now);
        let waited = self.changed.wait_while_for(&mut now, goes_on, DEADLINE);
        if let Some(why) = &now.failed {
            return Err(why.clone());
        }
        if waited.timed_out() {
            return Err(format!("the streams are not {what} in {DEADLINE:?}"));
        }
        now.address.map(|address| (now.started, address)).ok_or_else(|| "no node".to_owned())
    }
}

/// Reads a stream to its end, from as many nodes as that takes.
fn client(place: &Place, index: u64, key: &str) -> Result<Seen, String> {
    let mut seen = Seen::default();
    let (mut first, mut last_node) = (true, 0);
    while !seen.is_finished() {
        let (node, address) = if seen.events.is_empty() {
            // Nothing was promised yet: it is asked for (again) once the node takes requests.
            place.wait("asked for", |now| last_node < now.started && now.ready == now.started)?
        } else {
            place.wait("continued", |now| last_node < now.started)?
        };
        if !first {
            seen.resumed |= !seen.events.is_empty();
            seen.asked_again |= seen.events.is_empty();
        }
        (first, last_node) = (false, node);
        // A connection that breaks is what this is about.
        match read(&mut seen, place, address, index, key) {
            Ok(()) | Err(Broken::Connection) => {}
            Err(Broken::Promise(what)) => return Err(format!("{key}: {what}")),
        }
    }
    place.change(|now| now.finished += 1);
    Ok(seen)
}

enum Broken {
    Connection,
    Promise(String),
}

impl From<std::io::Error> for Broken {
    fn from(_: std::io::Error) -> Self {
        Self::Connection
    }
}

fn read(
    seen: &mut Seen,
    place: &Place,
    address: SocketAddr,
    index: u64,
    key: &str,
) -> Result<(), Broken> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(request(seen, index, key).as_bytes())?;
    let mut from = BufReader::new(stream);
    let status = line(&mut from)?;
    while !line(&mut from)?.is_empty() {}
    if !status.contains(" 200 ") {
        let mut body = String::new();
        from.read_to_string(&mut body)?;
        return Err(Broken::Promise(format!("{status} {body}")));
    }
    let mut number = String::new();
    loop {
        let line = line(&mut from)?;
        if let Some(id) = line.strip_prefix("id: ") {
            id.clone_into(&mut number);
        } else if let Some(data) = line.strip_prefix("data: ") {
            seen.event(&number, data)?;
            place.change(|now| now.events += 1);
            if data == "[DONE]" {
                return Ok(());
            }
        }
    }
}

/// A whole line; what is cut off was never sent.
fn line(from: &mut BufReader<TcpStream>) -> Result<String, Broken> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    line.strip_suffix('\n').map(|line| line.trim_end().to_owned()).ok_or(Broken::Connection)
}

/// In HTTP/1.0, so that the body is what is sent and nothing else.
fn request(seen: &Seen, index: u64, key: &str) -> String {
    if let (Some(id), false) = (&seen.id, seen.events.is_empty()) {
        let last = seen.events.len() - 1;
        return format!("GET /v1/streams/{id} HTTP/1.0\r\nlast-event-id: {id}:{last}\r\n\r\n");
    }
    let (tokens, choices, number) = (30 + index % 5 * 30, 1 + index % 4 / 3, 20 + index);
    let body = format!(
        r#"{{"messages":[{{"role":"user","content":"Count from 1 to {number}."}}],"stream":true,
        "stream_options":{{"include_usage":true}},"ignore_eos":true,"max_tokens":{tokens},
        "temperature":1.1,"frequency_penalty":0.2,"seed":{index},"n":{choices},
        "pinion":{{"on_disconnect":"complete","idempotency_key":"{key}"}}}}"#
    );
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.0\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

impl Seen {
    fn is_finished(&self) -> bool {
        self.events.last().is_some_and(|data| data == "[DONE]")
    }

    /// Takes an event, if it is the next one of its stream.
    fn event(&mut self, number: &str, data: &str) -> Result<(), Broken> {
        let (id, number) = number.rsplit_once(':').unwrap_or_default();
        if self.events.is_empty() {
            self.id = Some(id.to_owned());
        }
        if self.id.as_deref() != Some(id) || number != self.events.len().to_string() {
            let (known, expected) = (&self.id, self.events.len());
            let what = format!("event {number} of {id} is not event {expected} of {known:?}");
            return Err(Broken::Promise(what));
        }
        self.events.push(data.to_owned());
        Ok(())
    }

    /// The events of each choice without what differs from one inference to the next.
    fn comparable(&self) -> Vec<String> {
        let plain = |data: &String| {
            let choices = data.find("\"choices\"").map_or(&**data, |at| &data[at..]);
            let end = [",\"seed\"", ",\"prompt_tokens_details\""].map(|name| choices.find(name));
            choices[..end.into_iter().flatten().min().unwrap_or(choices.len())].to_owned()
        };
        let mut events: Vec<String> = self.events.iter().map(plain).collect();
        let choice =
            |data: &String| data.split_once("\"index\":").map(|(_, rest)| rest[..1].to_owned());
        // Which choice comes first in a step is nobody's promise; [DONE] has no choice.
        let last = events.pop();
        events.sort_by_key(choice);
        events.extend(last);
        events
    }

    /// Completion tokens, as the chunk with the usage says.
    fn usage(&self) -> Option<u32> {
        let usage = self.events.iter().rev().find(|data| data.contains("\"completion_tokens\""))?;
        let (_, rest) = usage.split_once("\"completion_tokens\":")?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

impl Report {
    fn add(&mut self, seen: &Seen) -> Result<(), String> {
        let (Some(id), Some(usage)) = (&seen.id, seen.usage()) else {
            return Err(format!("a stream has no usage: {seen:?}", seen = seen.events));
        };
        self.resumed += u64::from(seen.resumed);
        self.asked_again += u64::from(seen.asked_again);
        self.events += seen.events.len() as u64;
        match self.usage.insert(id.clone(), usage) {
            None => Ok(()),
            Some(_) => Err(format!("two streams have one id: {id}")),
        }
    }
}

/// Ends the daemon and its workers at once.
fn kill(node: &mut Child, worker_first: bool) {
    let id = node.id();
    let children = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten();
    let children = children
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .collect::<String>();
    let mut all: Vec<String> = children.split_whitespace().map(str::to_owned).collect();
    if worker_first {
        // It may be gone already.
        let _ = Command::new("kill").arg("-KILL").args(&all).stderr(Stdio::null()).status();
    }
    all.insert(0, id.to_string());
    let _ = Command::new("kill").arg("-KILL").args(&all).stderr(Stdio::null()).status();
    let _ = node.wait();
}

/// A small generator: the same seed gives the same moments.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
