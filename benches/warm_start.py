"""Time from process start to the first token: from a snapshot, from the package's files, and llama-server on the same weights.

    warm_start.py --pinion BIN --package DIR --dtype TYPE [--llama BIN --gguf FILE] [--rounds N] [--json FILE]

Every round runs each side once with its files in the page cache and once without (posix_fadvise DONTNEED), in turn, so
that a change of the machine meets all of them. `read` is the floor: the snapshot's image, read once by one thread into a
small buffer. The first token is that of a short completion over HTTP, asked for as soon as the server says it is ready.
llama-server maps its file, without warm-up run and without repacking: the least that it can do before it answers.
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import tempfile
import time

PROMPT = "Hello, how are you"
DEADLINE = 120


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ask(port, request):
    """Sends raw bytes; returns the answer up to its first piece of body, or nothing."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as one:
            one.sendall(request)
            answer = b""
            while b"\r\n\r\n" not in answer or answer.endswith(b"\r\n\r\n"):
                piece = one.recv(65536)
                if not piece:
                    break
                answer += piece
            return answer
    except OSError:
        return b""


def get(port, path):
    return ask(port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())


def post(port, path, body):
    body = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return ask(port, head.encode() + body)


def first_token(command, env, ready):
    """Starts a server; milliseconds to ready and to the first token, and what its largest process holds in memory."""
    port = free_port()
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command(port)], env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not get(port, ready).startswith(b"HTTP/1.1 200"):
            if process.poll() is not None or DEADLINE < time.perf_counter() - started:
                raise SystemExit(f"the server does not start: {process.args}")
            time.sleep(0.002)
        is_ready = time.perf_counter()
        answer = post(port, "/v1/completions", {"prompt": PROMPT, "max_tokens": 1, "temperature": 0})
        token = time.perf_counter()
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"no answer: {answer[:300]!r}")
        return {
            "ready_ms": (is_ready - started) * 1e3,
            "first_token_ms": (token - started) * 1e3,
            **memory(process.pid),
        }
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def memory(pid):
    """MiB of the process or child that holds most."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    for task in tasks:
        children += (task / "children").read_text().split()
    best = {}
    for one in [str(pid), *children]:
        lines = pathlib.Path(f"/proc/{one}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        found = {key: int(fields[name].split()[0]) / 1024 for key, name in
                 [("rss_mib", "VmRSS"), ("anon_mib", "RssAnon"), ("file_mib", "RssFile")]}
        best = max(best, found, key=lambda found: found.get("rss_mib", 0))
    return best


def read(image):
    buffer = bytearray(4 << 20)
    started = time.perf_counter()
    with open(image, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return {"first_token_ms": (time.perf_counter() - started) * 1e3}


def files_of(*roots):
    for root in map(pathlib.Path, roots):
        yield from [root] if root.is_file() else [path for path in root.rglob("*") if path.is_file()]


def drop(paths):
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(paths):
    for path in paths:
        read(path)


def sides(args, store):
    """Name, files, and how to run it once."""
    package = [args.pinion, "serve", args.package, "--dtype", args.dtype, "--threads", str(args.threads)]
    environment = {"PINION_SNAPSHOT_DIR": store}
    image = next(pathlib.Path(store).rglob("weights.img"))

    def pinion(mode):
        return lambda port: [*package, "--snapshots", mode, "--listen", f"127.0.0.1:{port}"]

    yield "read", [image], lambda: read(image)
    yield "snapshot", [image.parent], lambda: first_token(pinion("on"), environment, "/readyz")
    yield "files", [args.package], lambda: first_token(pinion("off"), environment, "/readyz")
    if args.llama:
        def llama(port):
            return [args.llama, "-m", args.gguf, "--port", str(port), "-t", str(args.threads), "-c", "4096",
                    "--no-warmup", "--no-repack"]
        yield "llama.cpp", [args.gguf], lambda: first_token(llama, {}, "/health")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pinion", required=True)
    parser.add_argument("--package", required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--llama")
    parser.add_argument("--gguf")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=pathlib.Path(args.package).parent) as store:
        write = [args.pinion, "snapshot", args.package, "--dtype", args.dtype, "--snapshot-dir", store]
        subprocess.run(write, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        results = {}
        for _ in range(args.rounds):
            for cache, prepare in [("in memory", warm), ("on disk", drop)]:
                for name, files, run in sides(args, store):
                    prepare(files_of(*files))
                    results.setdefault((name, cache), []).append(run())
    if args.json:
        rows = [{"side": name, "cache": cache, "runs": runs} for (name, cache), runs in results.items()]
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1))
    print(f"{args.package} {args.dtype}: milliseconds from process start to the first token, {args.rounds} rounds\n")
    print("| side | page cache | median | least | ready | RSS MiB | of these private |\n|---|---|--:|--:|--:|--:|--:|")
    for (name, cache), runs in results.items():
        def median(key):
            values = [run[key] for run in runs if key in run]
            return f"{statistics.median(values):.0f}" if values else ""
        least = min(run["first_token_ms"] for run in runs)
        print(f"| {name} | {cache} | {median('first_token_ms')} | {least:.0f} | {median('ready_ms')} "
              f"| {median('rss_mib')} | {median('anon_mib')} |")


if __name__ == "__main__":
    main()
