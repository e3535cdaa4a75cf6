#!/usr/bin/env bash
# First figures of a node: single stream, many streams, shared prefixes. Needs the release binary.
#
#   benches/run.sh OUT.jsonl [PACKAGE…]     each PACKAGE a directory; the built-in model if there is none
#
# One JSON line a run, as `pinion bench --json` prints it. Runs are interleaved: every case once, then again.
set -euo pipefail
out=$1
shift
pinion=${PINION:-target/release/pinion}
rounds=${ROUNDS:-3}
[ $# -gt 0 ] || set -- ''

serve() {
  "$pinion" serve ${1:+"$1"} --listen 127.0.0.1:0 2>"$log" &
  node=$!
  until url=$(sed -n 's/^listening on //p' "$log") && [ -n "$url" ] && grep -q ': ready in' "$log"; do
    kill -0 "$node" || { cat "$log" >&2; exit 1; }
  done
}

log=$(mktemp)
trap 'kill "${node:-}" 2>/dev/null || true; rm -f "$log"' EXIT
: >"$out"
for round in $(seq "$rounds"); do
  for package in "$@"; do
    serve "$package"
    number=0
    for case in '-c 1 -n 4' '-c 8 -n 16' '-c 16 -n 32' '-c 8 -n 16 --shared-prefix-tokens 112'; do
      number=$((number + 1))
      # shellcheck disable=SC2086 # the case is a list of arguments
      "$pinion" bench "$url" $case --prompt-tokens 128 --output-tokens 64 --json --seed "$round$number" >>"$out"
    done
    kill -INT "$node"
    wait "$node" || true
  done
done
echo "wrote $out" >&2
