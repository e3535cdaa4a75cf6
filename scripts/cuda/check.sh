#!/usr/bin/env bash
# Checks the CUDA path without a GPU: Rust with the feature and a stand-in for the compiler, then, where wheels can be
# had, every kernel with the real one, for every target. Ends with 77 where there is no compiler to be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
NVCC=$PWD/scripts/cuda/fake-nvcc cargo clippy -p pinion-kernels --features cuda --locked -- -D warnings
if ! exports=$(scripts/cuda/setup.sh "${PINION_CUDA_DIR:-$HOME/.cache/pinion-cuda}"); then
  echo 'no CUDA compiler: the kernels were not compiled for GPUs' >&2
  exit 77
fi
eval "$exports"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for source in kernels/cuda/*.cu; do
  "$NVCC" -fatbin -O3 -std=c++17 -fmad=false --compress-mode=size -Werror all-warnings \
    -gencode=arch=compute_90a,code=sm_90a -gencode=arch=compute_80,code=compute_80 \
    -o "$out/$(basename "$source" .cu).fatbin" "$source"
done
echo "$(ls "$out" | wc -l) kernel sources, $(cat "$out"/*.fatbin | wc -c) bytes"
