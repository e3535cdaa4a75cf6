#!/usr/bin/env python3
"""What a node gains by not computing or not waiting twice: prefixes it has seen, tokens it can guess.

    benches/reuse.py URL [--rounds 7] [--prefix-tokens 1500] [--output-tokens 256] [--speculative-tokens 8]

Prefix: two requests share their first tokens; the time to the first token of each, and the ratio.
Guesses: one greedy request that repeats itself, with and without `speculative_tokens`, in turn; the
texts must be equal. Prints one JSON object. Needs only Python and a node that runs one package.
"""

import argparse
import http.client
import json
import random
import socket
import statistics
import time
from urllib.parse import urlparse


class Node:
    def __init__(self, url, key=None):
        self.address = urlparse(url)
        self.headers = {"content-type": "application/json"}
        if key:
            self.headers["authorization"] = f"Bearer {key}"

    def open(self, method, path, body=None):
        address = self.address
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=600)
        connection.connect()
        # Else the body waits for the acknowledgement of the head.
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.request(method, path, body and json.dumps(body), self.headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"error: {path}: {answer.status} {answer.read().decode()}")
        return answer

    def metric(self, name):
        for line in self.open("GET", "/metrics").read().decode().splitlines():
            if line.split("{")[0].split(" ")[0] == name:
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def complete(self, prompt, num_tokens, **more):
        """Seconds to the first token and in all, the text, and the usage."""
        body = {
            "prompt": prompt, "max_tokens": num_tokens, "temperature": 0, "ignore_eos": True,
            "min_tokens": num_tokens, "stream": True, "stream_options": {"include_usage": True}, **more,
        }
        start, first, text, usage = time.perf_counter(), None, "", None
        for line in self.open("POST", "/v1/completions", body):
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise SystemExit(f"error: {chunk['error']['message']}")
            usage = chunk.get("usage") or usage
            if chunk["choices"]:
                first = first or time.perf_counter()
                text += chunk["choices"][0]["text"]
        return first - start, time.perf_counter() - start, text, usage


def prefix(node, args, rng):
    rows = []
    for _ in range(args.rounds):
        shared = [rng.randrange(100, 1000) for _ in range(args.prefix_tokens)]
        own = [[rng.randrange(100, 1000) for _ in range(8)] for _ in range(2)]
        cold, _, _, first = node.complete(shared + own[0], 4)
        warm, _, _, second = node.complete(shared + own[1], 4)
        cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in (first, second)]
        rows.append({"cold_ms": cold * 1e3, "warm_ms": warm * 1e3, "ratio": cold / warm, "cached": cached})
    return {"prefix_tokens": args.prefix_tokens, "median_ratio": median(rows, "ratio"),
            "median_cold_ms": median(rows, "cold_ms"), "median_warm_ms": median(rows, "warm_ms"), "rounds": rows}


def guesses(node, args, rng):
    names = ["pinion_speculative_tokens_proposed_total", "pinion_speculative_tokens_accepted_total"]
    before = [node.metric(name) for name in names]
    rows = []
    for _ in range(args.rounds):
        prompt = [rng.randrange(100, 1000) for _ in range(16)] * 4
        # Both find the prompt's blocks.
        node.complete(prompt, 1)
        took = {}
        for count in (0, args.speculative_tokens):
            first, total, text, _ = node.complete(prompt, args.output_tokens, speculative_tokens=count)
            took[count] = (total - first, text)
        (plain, text), (guessed, same) = took[0], took[args.speculative_tokens]
        if text != same:
            raise SystemExit("error: guessing changed the text")
        rate = (args.output_tokens - 1) / plain
        rows.append({"plain_tokens_per_s": rate, "guessed_tokens_per_s": rate * plain / guessed,
                     "ratio": plain / guessed})
    proposed, accepted = (node.metric(name) - old for name, old in zip(names, before))
    return {"speculative_tokens": args.speculative_tokens, "median_ratio": median(rows, "ratio"),
            "median_plain_tokens_per_s": median(rows, "plain_tokens_per_s"),
            "median_guessed_tokens_per_s": median(rows, "guessed_tokens_per_s"),
            "acceptance_rate": accepted / max(proposed, 1), "rounds": rows}


def median(rows, name):
    return statistics.median(row[name] for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--api-key")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prefix-tokens", type=int, default=1500)
    parser.add_argument("--output-tokens", type=int, default=256)
    parser.add_argument("--speculative-tokens", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["prefix", "guesses"])
    args = parser.parse_args()
    node, rng = Node(args.url, args.api_key), random.Random(args.seed)
    node.complete([100, 200], 2)
    result = {}
    if args.only != "guesses":
        result["prefix"] = prefix(node, args, rng)
    if args.only != "prefix":
        result["guesses"] = guesses(node, args, rng)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
