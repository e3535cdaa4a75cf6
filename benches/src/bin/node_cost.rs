//! What the node around a model costs: processor time per streamed token, when computing it is free.
//!
//! `cargo run --release -p pinion-benches --bin node_cost -- --pinion target/release/pinion`: starts
//! the real daemon, whose worker is this program: the real worker, with a model that answers at
//! once. A client that only reads bytes takes part in a process of its own, so that its time is
//! counted apart.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use clap::Parser;
use pinion_kernels::Activations;
use pinion_loader::{LoadError, LoadOptions, LoadedPackage, PackageFiles, ProgressFn};
use pinion_models::{CausalLm, ForwardCtx, ModelSpec};

/// Ticks a second of the times in `/proc`; the same on every Linux.
const TICKS: f64 = 100.0;
/// Tokens that the model answers with: letters and parts of words in every vocabulary.
const FIRST_TOKEN: u32 = 300;
const NUM_TOKENS: u32 = 64;

/// Processor time of the node per streamed token.
#[derive(Parser)]
struct Args {
    /// The pinion binary.
    #[arg(long, default_value = "target/release/pinion")]
    pinion: PathBuf,
    /// Streams at once.
    #[arg(long, default_value_t = 64)]
    streams: usize,
    /// Tokens of each stream.
    #[arg(long, default_value_t = 4000)]
    tokens: usize,
    /// Times that everything is run.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Write the streams to a journal in this directory.
    #[arg(long)]
    stream_dir: Option<PathBuf>,
    /// Only read streams from this address, and say how long it took.
    #[arg(long, hide = true)]
    read_from: Option<SocketAddr>,
}

fn main() -> Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return Ok(pinion_server::worker::main_with(load));
    }
    let args = Args::parse();
    match args.read_from {
        Some(address) => read_streams(address, args.streams, args.tokens)?,
        None => measure(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The package as it is, but for its model.
fn load(
    files: &PackageFiles,
    options: &LoadOptions,
    progress: &ProgressFn,
) -> Result<LoadedPackage, LoadError> {
    let mut package = pinion_loader::load(files, options, progress)?;
    let spec = ModelSpec {
        num_layers: 1,
        num_kv_heads: 1,
        head_dim: 1,
        max_model_len: 1 << 16,
        ..package.spec
    };
    package.spec = spec.clone();
    package.model = Box::new(Free(spec));
    Ok(package)
}

/// A model that costs nothing but its logits: each position has its token.
struct Free(ModelSpec);

impl CausalLm for Free {
    fn spec(&self) -> &ModelSpec {
        &self.0
    }

    fn forward(&self, cx: &ForwardCtx<'_>) -> candle_core::Result<Activations> {
        let positions = cx.batch.positions.to_vec1::<u32>()?;
        let rows = cx.batch.logits_indices.to_vec1::<u32>()?;
        let mut logits = vec![0f32; rows.len() * self.0.vocab_size];
        for (row, logits) in rows.iter().zip(logits.chunks_exact_mut(self.0.vocab_size)) {
            logits[(FIRST_TOKEN + positions[*row as usize] % NUM_TOKENS) as usize] = 1.0;
        }
        let shape = (rows.len(), self.0.vocab_size);
        Activations::from_tensor(&Tensor::from_vec(logits, shape, &Device::Cpu)?)
    }
}

fn measure(args: &Args) -> Result<()> {
    let this = std::env::current_exe()?;
    let (mut daemon, address, _log) = start(args, &this)?;
    let result = (0..args.rounds).try_for_each(|_| round(args, &this, &daemon, address));
    daemon.kill()?;
    daemon.wait()?;
    result
}

/// The daemon, where it listens, and its messages.
fn start(args: &Args, worker: &Path) -> Result<(Child, SocketAddr, BufReader<ChildStderr>)> {
    let (pinion, streams) = (&args.pinion, args.streams.to_string());
    let mut daemon = Command::new(pinion);
    match &args.stream_dir {
        Some(directory) => daemon.args(["serve", "--stream-dir"]).arg(directory),
        None => daemon.args(["serve", "--stream-journal", "false"]),
    };
    let mut daemon = daemon
        .args(["--listen", "127.0.0.1:0", "--prefix-cache", "false", "--snapshots", "off"])
        .args(["--max-num-seqs", &streams, "--max-queue", &streams])
        .env("PINION_WORKER", worker)
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", pinion.display()))?;
    let mut log = BufReader::new(daemon.stderr.take().context("it has no standard error")?);
    let (mut address, mut line) = (None, String::new());
    while log.read_line(&mut line)? != 0 {
        if let Some(url) = line.trim().strip_prefix("listening on http://") {
            address = Some(url.parse()?);
        }
        if line.contains(": ready in") {
            return Ok((daemon, address.context("it said no address")?, log));
        }
        ensure!(!line.contains(": error: "), "the node did not start: {line}");
        line.clear();
    }
    bail!("the node did not start")
}

/// Runs the client once, and prints what it cost whom.
fn round(args: &Args, this: &Path, daemon: &Child, address: SocketAddr) -> Result<()> {
    let worker = children(daemon.id())?;
    let times = || -> Result<(f64, f64)> {
        let worker = worker.iter().map(|&pid| cpu_seconds(pid)).sum::<Result<f64>>()?;
        Ok((cpu_seconds(daemon.id())?, worker))
    };
    let before = times()?;
    let client = Command::new(this)
        .args(["--read-from", &address.to_string(), "--streams", &args.streams.to_string()])
        .args(["--tokens", &args.tokens.to_string()])
        .output()?;
    let after = times()?;
    let text = String::from_utf8(client.stdout)?;
    let mut fields = text.split_whitespace().map(str::parse::<f64>);
    let (Some(Ok(seconds)), Some(Ok(client_seconds)), Some(Ok(bytes))) =
        (fields.next(), fields.next(), fields.next())
    else {
        bail!("the client failed: {}", String::from_utf8_lossy(&client.stderr))
    };
    let tokens = (args.streams * args.tokens) as f64;
    let micros = |seconds: f64| seconds * 1e6 / tokens;
    let (daemon, worker) = (after.0 - before.0, after.1 - before.1);
    writeln!(
        std::io::stdout(),
        "{} streams x {} tokens: {:.0} tokens/s; per token: {:.2} us node ({:.2} daemon, {:.2} worker), \
         {:.2} us client, {:.0} bytes; the node alone on 2 cores: {:.0} tokens/s",
        args.streams,
        args.tokens,
        tokens / seconds,
        micros(daemon + worker),
        micros(daemon),
        micros(worker),
        micros(client_seconds),
        bytes / tokens,
        2e6 / micros(daemon + worker),
    )?;
    Ok(())
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("children"))?;
        all.extend(text.split_whitespace().map(str::parse::<u32>).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(all)
}

/// Processor time of a process, user and system.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("stat has no name")?;
    let ticks = |index: usize| -> Result<f64> {
        Ok(fields.split_whitespace().nth(index).context("stat is short")?.parse()?)
    };
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// Reads all streams on one thread, in turns, and prints seconds, processor seconds and bytes.
fn read_streams(address: SocketAddr, streams: usize, tokens: usize) -> Result<()> {
    let body = format!(
        r#"{{"prompt":"a","max_tokens":{tokens},"ignore_eos":true,"temperature":0,"stream":true}}"#
    );
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let start = Instant::now();
    let mut open = Vec::new();
    for _ in 0..streams {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(request.as_bytes())?;
        stream.set_nonblocking(true)?;
        open.push(Reader { stream, chunks: 0, last: 0 });
    }
    let (mut buffer, mut bytes) = (vec![0; 1 << 18], 0);
    while !open.is_empty() {
        let mut index = 0;
        while index < open.len() {
            if let Some(read) = open[index].read(&mut buffer)? {
                bytes += read;
                index += 1;
                continue;
            }
            let chunks = open.swap_remove(index).chunks;
            // One chunk a token, and one that says why the text ended.
            ensure!(chunks == tokens + 1, "{chunks} chunks for {tokens} tokens");
        }
        // What comes meanwhile is read at once: a client costs the node nothing by reading often.
        std::thread::sleep(Duration::from_millis(2));
    }
    let seconds = start.elapsed().as_secs_f64();
    writeln!(std::io::stdout(), "{seconds} {} {bytes}", cpu_seconds(std::process::id())?)?;
    Ok(())
}

/// One stream, and how many chunks it brought.
struct Reader {
    stream: TcpStream,
    chunks: usize,
    last: u8,
}

impl Reader {
    /// Bytes that were there; none at the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let read = match self.stream.read(buffer) {
            Ok(0) => return Ok(None),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(Some(0)),
            Err(error) => return Err(error.into()),
        };
        for &byte in &buffer[..read] {
            // Every chunk is `data: {…}` in a line of its own; JSON has no bare line feed.
            self.chunks += usize::from(self.last == b'}' && byte == b'\n');
            self.last = byte;
        }
        Ok(Some(read))
    }
}
