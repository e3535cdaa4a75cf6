"""Compares two servers on the same weights, the same machine, in one run: A B B A A B …

    python benches/compare.py --ours target/release/pinion --theirs PATH/llama-server --json OUT.json --markdown OUT.md

Each side is a binary (`pinion` or `llama-server`, told apart by name) or the URL of a running OpenAI endpoint. Binaries
serve random weights in the shapes of known models (`make_model.py`; for llama-server the same weights as GGUF, by
`make_gguf.py` and the `llama-quantize` beside it), once for each weight type. Needs numpy, tokenizers and gguf from PyPI.

The load comes from `pinion bench` for both sides (`--client` names the binary; `--ours` otherwise). A ratio is the
median of the ratios of neighbouring runs, and it is only given for runs that did alternate. `--only` picks scenarios.
`--llama-args=--no-repack` where llama-server ends with an illegal instruction in its AMX code, as on some guests.
"""

import argparse
import collections
import json
import os
import pathlib
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
STREAMS, CONTEXT = 16, 2048
MODELS = ("smollm2-135m", "qwen3-0.6b")
# Weight types, and what llama-quantize calls the file of each.
TYPES = {"bf16": None, "q8_0": "Q8_0", "q4_k": "Q4_K_M"}

# A program without a prefix cache over slots takes minutes for `prefix` on a larger model: one type is enough there.
PREFIX_TYPES = {"qwen3-0.6b": ["q8_0"]}

# What `pinion bench` is asked for, and which of its figures count: name, path in its JSON, and whether more is better.
LATENCY = ("latency", "ttft_ms", "p50")
SCENARIOS = {
    "decode": (
        "1 stream, 128 + 64 tokens",
        "-c 1 -n 1 --warm-up 0 --prompt-tokens 128 --output-tokens 64",
        [("tokens/s", ("latency", "tpot_ms", "p50"), "rate")],
    ),
    "prefill": (
        "1 stream, 512 + 1 tokens",
        "-c 1 -n 2 --warm-up 0 --prompt-tokens 512 --output-tokens 1",
        [("prompt tokens/s", LATENCY, "prompt rate")],
    ),
    "streams": (
        "16 streams, 128 + 64 tokens",
        "-c 16 -n 16 --warm-up 0 --prompt-tokens 128 --output-tokens 64",
        [("tokens/s", ("output_tokens_per_second",), "more"), ("ITL p95, ms", ("latency", "itl_ms", "p95"), "less")],
    ),
    "prefix": (
        "16 streams, 1,500 of 1,532 tokens shared, 32 out",
        "-c 16 -n 16 --warm-up 0 --prompt-tokens 1532 --shared-prefix-tokens 1500 --output-tokens 32",
        [("tokens/s", ("output_tokens_per_second",), "more"), ("TTFT p50, ms", LATENCY, "less")],
    ),
}


class Server:
    """A server that this run started, or one that it was pointed at."""

    def __init__(self, side, command=None, url=None, ready="/health"):
        self.side, self.process, self.url = side, None, url
        self.bytes_per_token = None
        if command:
            self.log = tempfile.TemporaryFile("w+")
            self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
            self.wait(ready)

    def wait(self, ready):
        deadline = time.time() + 180
        while time.time() < deadline:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.url + ready, timeout=2) as reply:
                    if reply.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"{self.side} did not start:\n{self.last_words()}")

    def last_words(self):
        """The end of what the server printed, and its exit status if it is gone."""
        if self.process is None:
            return ""
        self.log.seek(0)
        return f"{self.log.read()[-2000:]}\nexit status: {self.process.poll()}"

    def peak_bytes(self):
        """Largest resident size of the server's processes, summed."""
        if self.process is None:
            return None
        total = 0
        for pid in family(self.process.pid):
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            total += int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024
        return total

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def family(pid):
    """A process and its descendants."""
    yield pid
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from family(int(child))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(side, target, model, kind, work, streams, llama_args=""):
    """Serves a model on one side."""
    if target.startswith(("http://", "https://")):
        return Server(side, url=target.rstrip("/"))
    port, threads = free_port(), str(len(os.sched_getaffinity(0)))
    url = f"http://127.0.0.1:{port}"
    package = package_of(model, work)
    if "llama-server" in pathlib.Path(target).name:
        file = gguf_of(model, kind, work, pathlib.Path(target).parent)
        command = [target, "-m", file, "--host", "127.0.0.1", "--port", str(port), "-t", threads, "-tb", threads]
        ready = "/health"
        command += ["-np", str(streams), "-c", str(streams * CONTEXT), "--no-webui", *llama_args.split()]
    else:
        ready = "/readyz"
        command = [target, "serve", package, "--listen", f"127.0.0.1:{port}", "--threads", threads, "--dtype", kind]
        command += ["--max-model-len", str(CONTEXT), "--max-num-seqs", str(streams)]
    server = Server(side, [str(part) for part in command], url, ready)
    server.bytes_per_token = gguf_bytes(model, kind, work)
    return server


def package_of(model, work):
    package = work / model
    if not (package / "cog.yaml").exists():
        subprocess.run([sys.executable, HERE / "make_model.py", model, package], check=True)
    return package


def gguf_of(model, kind, work, tools):
    plain, file = work / f"{model}-bf16.gguf", work / f"{model}-{kind}.gguf"
    if not plain.exists():
        subprocess.run([sys.executable, HERE / "make_gguf.py", package_of(model, work), plain], check=True)
    if not file.exists():
        command = [tools / "llama-quantize", plain, file, TYPES[kind]]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return file


def gguf_bytes(model, kind, work):
    file = work / f"{model}-{kind}.gguf"
    return sum(int(tensor.n_bytes) for tensor in gguf_tensors(file)) if file.exists() else None


def gguf_tensors(file):
    import gguf

    return gguf.GGUFReader(file).tensors


def picked_types(file):
    """Share of each tensor type in a file, in percent of its bytes."""
    bytes_of = collections.Counter()
    for tensor in gguf_tensors(file):
        bytes_of[tensor.tensor_type.name] += int(tensor.n_bytes)
    total = sum(bytes_of.values())
    return {name: round(100 * count / total, 1) for name, count in bytes_of.most_common() if count / total > 0.001}


def cpu_seconds():
    """Time that all CPUs have worked."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def own_seconds(server):
    if server.process is None:
        return 0.0
    ticks = 0
    for pid in family(server.process.pid):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(server, scenario, client, seed):
    """One run of a scenario: its figures, and how many other CPUs' worth of work went on meanwhile."""
    _, options, figures = SCENARIOS[scenario]
    before, own, started = cpu_seconds(), own_seconds(server), time.time()
    usage = os.times()
    command = [client, "bench", server.url, *options.split(), "--json", "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.time() - started
    after = os.times()
    mine = after.children_user + after.children_system - usage.children_user - usage.children_system
    foreign = (cpu_seconds() - before - (own_seconds(server) - own) - mine) / seconds
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise SystemExit(f"{server.side}, {scenario}: {done.stderr.strip() or done.stdout.strip()}")
    if report["failed"]:
        failure = f"{report['failed']} requests failed: {report['first_error']}"
        raise SystemExit(f"{server.side}, {scenario}: {failure}\n{server.last_words()}")
    values = {}
    for name, path, kind in figures:
        value = report
        for key in path:
            value = value[key]
        if kind == "rate":
            value = 1000 / value
        elif kind == "prompt rate":
            value = report["prompt_tokens"] / report["succeeded"] * 1000 / value
        values[name] = value
    return dict(side=server.side, at=started, seconds=seconds, foreign_cpus=max(0.0, foreign), figures=values)


def alternate(servers, scenario, client, rounds, budget, seed):
    """Runs A B, then B A, and so on, at most `rounds` times and no new round after `budget` seconds."""
    runs, deadline = [], time.time() + budget
    for round in range(rounds):
        order = servers if round % 2 == 0 else servers[::-1]
        for server in order:
            runs.append(measure(server, scenario, client, seed + 100 * round) | dict(round=round))
        if deadline < time.time():
            break
    return runs


def ratio(runs, figure, sides):
    """The median ratio of a figure between two sides; an error where their runs did not alternate."""
    runs = sorted(runs, key=lambda run: run["at"])
    pairs = [runs[at : at + 2] for at in range(0, len(runs), 2)]
    for pair in pairs:
        alternating = sorted(run["side"] for run in pair) == sorted(sides)
        if not alternating or pair[0]["round"] != pair[1]["round"]:
            raise ValueError("the runs were not interleaved, so there is no ratio")
        if pair[1]["at"] < pair[0]["at"] + pair[0]["seconds"]:
            raise ValueError("the runs overlapped, so there is no ratio")
    if not pairs:
        raise ValueError("there are no runs, so there is no ratio")
    by_side = [{run["side"]: run["figures"][figure] for run in pair} for pair in pairs]
    return statistics.median(values[sides[0]] / values[sides[1]] for values in by_side)


def compare(args, targets):
    """All measurements: one entry a model, type and scenario."""
    client = args.client or args.ours
    remote = any(target.startswith("http") for target in targets.values())
    cells = []
    models, kinds = (("as served",), ("as served",)) if remote else (args.models, args.types)
    for model in models:
        for kind in kinds:
            servers = []
            try:
                for side, target in targets.items():
                    servers.append(start(side, target, model, kind, args.work, STREAMS, args.llama_args))
                for scenario in args.only:
                    if scenario == "prefix" and kind not in PREFIX_TYPES.get(model, kind):
                        continue
                    seed = 1000 * len(cells) + 17
                    runs = alternate(servers, scenario, client, args.rounds, args.budget, seed)
                    cells.append(dict(model=model, type=kind, scenario=scenario, runs=runs))
                    cells[-1]["bytes_per_token"] = servers[-1].bytes_per_token
                    print(f"{model} {kind} {scenario}: {len(runs)} runs", file=sys.stderr)
            finally:
                for server in servers:
                    server.stop()
            if args.memory and not remote:
                cells.append(memory(targets, model, kind, args, client))
    return cells


def memory(targets, model, kind, args, client):
    """Peak memory of a server for one sequence after a request of 512 tokens, one side after the other."""
    peaks = {}
    for side, target in targets.items():
        server = start(side, target, model, kind, args.work, 1, args.llama_args)
        try:
            measure(server, "prefill", client, 7)
            peaks[side] = server.peak_bytes()
        finally:
            server.stop()
    return dict(model=model, type=kind, scenario="memory", peak_bytes=peaks)


def output_of(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        return (done.stdout + done.stderr).strip()
    except OSError as error:
        return str(error)


def machine(args, targets):
    """What was measured on."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", cpuinfo, re.M)[1].split()
    name = re.search(r"^model name\s*: (.*)$", cpuinfo, re.M)
    interesting = [flag for flag in flags if re.match(r"avx|amx|fma|f16c|asimd|sve|i8mm|bf16", flag)]
    bandwidth = None
    tool = args.bandwidth or pathlib.Path(args.client or args.ours).with_name("bandwidth")
    if pathlib.Path(tool).exists():
        rates = re.findall(r"([\d.]+) GB/s", output_of(str(tool)))
        bandwidth = [float(rate) for rate in rates]
    versions = {}
    for side, target in targets.items():
        if not target.startswith("http"):
            versions[side] = output_of(target, "--version").split("\n")[0]
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]
    return dict(
        cpu=name[1] if name else platform.machine(),
        cpus=len(os.sched_getaffinity(0)),
        flags=interesting,
        memory_gib=round(int(memory) / 2**20, 1),
        kernel=platform.release(),
        bandwidth_gb_s=bandwidth,
        versions=versions,
        commit=output_of("git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"),
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )


def markdown(result):
    """The table of a result."""
    about, sides = result["machine"], result["sides"]
    versions = "; ".join(f"{side}: {version}" for side, version in about["versions"].items())
    lines = [
        f"Machine: {about['cpus']} CPUs, {about['cpu']}, {about['memory_gib']} GiB, Linux {about['kernel']}; "
        f"{' '.join(about['flags'])}.",
        f"Date: {about['date']}. Commit: {about['commit']}. Versions: {versions}. "
        f"Arguments added for llama-server: {result['llama_args'] or 'none'}.",
    ]
    rates = about["bandwidth_gb_s"]
    if rates:
        lines.append(f"Memory bandwidth, measured: {rates[0]} GB/s with one thread, {rates[-1]} GB/s with all.")
    for file, types in result["gguf_types"].items():
        lines.append(f"{file}: " + ", ".join(f"{name} {share}%" for name, share in types.items()) + " of its bytes.")
    lines += ["", f"| model, type | scenario | figure | {sides[0]} | {sides[1]} | ratio | rounds | of bound | foreign |"]
    lines.append("|---|---|---|--:|--:|--:|--:|--:|--:|")
    for cell in result["cells"]:
        lines += memory_row(cell, sides) if cell["scenario"] == "memory" else rows(cell, sides, rates)
    lines += ["", "Median of the rounds; ratio: median of the ratios of neighbouring runs. Of bound: share of the tokens that"]
    lines[-1] += " the memory bandwidth allows a single stream. Foreign: CPUs that worked for others, at most."
    return "\n".join(lines) + "\n"


def rows(cell, sides, rates):
    title, _, figures = SCENARIOS[cell["scenario"]]
    for figure, _, _ in figures:
        medians = [
            statistics.median(run["figures"][figure] for run in cell["runs"] if run["side"] == side) for side in sides
        ]
        try:
            shown = f"{ratio(cell['runs'], figure, sides):.2f}"
        except ValueError as error:
            shown = f"none: {error}"
        bound = ""
        if cell["scenario"] == "decode" and rates and cell["bytes_per_token"]:
            bound = f"{100 * medians[0] * cell['bytes_per_token'] / (rates[-1] * 1e9):.0f}%"
        foreign = max(run["foreign_cpus"] for run in cell["runs"])
        values = " | ".join(f"{median:,.1f}" for median in medians)
        head = f"{cell['model']} {cell['type']} | {title} | {figure}"
        yield f"| {head} | {values} | {shown} | {len(cell['runs']) // 2} | {bound} | {foreign:.2f} |"


def memory_row(cell, sides):
    peaks = [cell["peak_bytes"][side] / 2**20 for side in sides]
    values = " | ".join(f"{peak:,.0f}" for peak in peaks)
    head = f"{cell['model']} {cell['type']} | 1 stream, 512 + 1 tokens | peak memory, MiB"
    # One start a side: a size, unlike a time, does not depend on what ran beside it.
    yield f"| {head} | {values} | {peaks[0] / peaks[1]:.2f} | 1 | | |"


def arguments():
    parser = argparse.ArgumentParser(description="Compares two servers on the same weights in one run.")
    parser.add_argument("--ours", required=True, help="binary or URL of the first side")
    parser.add_argument("--theirs", required=True, help="binary or URL of the second side")
    parser.add_argument("--client", help="the pinion binary that makes the load [default: --ours]")
    parser.add_argument("--bandwidth", help="the binary that measures bandwidth [default: beside the client]")
    parser.add_argument("--llama-args", default="", help="further arguments of llama-server, as one text")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--types", nargs="+", choices=list(TYPES), default=list(TYPES))
    parser.add_argument("--only", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS), help="scenarios")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave out peak memory")
    parser.add_argument("--rounds", type=int, default=3, help="runs a side and scenario, at most")
    parser.add_argument("--budget", type=float, default=8, help="seconds after which a scenario starts no new round")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "pinion-compare")
    parser.add_argument("--json", type=pathlib.Path, help="file for all runs")
    parser.add_argument("--markdown", type=pathlib.Path, help="file for the table [default: standard output]")
    return parser.parse_args()


def main():
    args = arguments()
    # Ended by SIGTERM or by an error, the servers end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    args.work.mkdir(parents=True, exist_ok=True)
    names = [pathlib.Path(target).name if "://" not in target else target for target in (args.ours, args.theirs)]
    if names[0] == names[1]:
        names = [f"{name} {letter}" for name, letter in zip(names, "AB")]
    targets = dict(zip(names, (args.ours, args.theirs)))
    about = machine(args, targets)
    cells = compare(args, targets)
    files = [args.work / f"{model}-{kind}.gguf" for model in args.models for kind in args.types]
    types = {file.name: picked_types(file) for file in files if file.exists()}
    result = dict(machine=about, llama_args=args.llama_args, sides=names, gguf_types=types, cells=cells)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    table = markdown(result)
    if args.markdown:
        args.markdown.write_text(table)
    else:
        print(table)


if __name__ == "__main__":
    main()
