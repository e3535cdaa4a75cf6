#!/usr/bin/env bash
# suite.sh DIR: builds what a machine with a GPU needs to judge the CUDA path, and puts it into DIR: the tests of kernels,
# models and engine, which take the GPU where they find one, the benches, and pinion itself, compressed for the way.
# On that machine: `sh DIR/run.sh`, at most 8 minutes, nothing to download. It leaves DIR/gpu.json.
set -euo pipefail
dir=${1:?usage: suite.sh DIR}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
eval "$(scripts/cuda/setup.sh "${PINION_CUDA_DIR:-$HOME/.cache/pinion-cuda}")"
take() { # NAME EXECUTABLE
  strip -o "$dir/$1" "$2"
  xz -T2 -3 -f "$dir/$1"
}
test_binary() { # NAME CARGO-ARGUMENTS…: the one executable that cargo names
  local name=$1 path
  shift
  path=$(cargo test --no-run --locked --message-format=json "$@" |
    python3 -c 'import json,sys
found=[m["executable"] for m in map(json.loads,sys.stdin) if m.get("executable") and m["profile"]["test"]]
print(found[-1])')
  take "$name" "$path"
}
test_binary test-kernels -p pinion-kernels --features pinion-kernels/cuda --test emulation
test_binary test-models -p pinion-models --features pinion-kernels/cuda --test it
test_binary test-engine -p pinion-engine --features pinion-kernels/cuda --lib
cargo build --release --locked -p pinion-server -p pinion-benches --features pinion-kernels/cuda --bin pinion --bin gpu
target=${CARGO_TARGET_DIR:-target}
take pinion "$target/release/pinion"
take gpu "$target/release/gpu"
cat > "$dir/run.sh" <<'RUN'
#!/bin/sh
# Judges the CUDA path on this machine: tests first, then the benches. Ends with the number of failures.
cd "$(dirname "$0")" || exit 1
failures=0
for name in test-kernels test-models test-engine gpu pinion; do
  python3 -c 'import lzma,shutil,sys;shutil.copyfileobj(lzma.open(sys.argv[1]+".xz"),open(sys.argv[1],"wb"))' "$name" &&
    chmod +x "$name"
done
step() {
  echo "== $*"
  timeout 240 "$@" || failures=$((failures + 1))
}
step ./test-kernels
step ./test-models gpu
step ./test-engine device
step ./gpu --json gpu.json
step ./pinion demo --exit --device cuda:0
exit "$failures"
RUN
ls -l "$dir"
