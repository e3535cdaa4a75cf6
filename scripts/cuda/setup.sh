#!/usr/bin/env bash
# setup.sh DIR: puts a CUDA 13.0 compiler (nvcc, cicc, ptxas, headers) into DIR from PyPI wheels: about 105 MB to download,
# 150 MB on disk. No driver, no CUDA library: pinion opens libcuda.so.1 when it runs, so nothing is linked.
# Needs python3 with pip. Idempotent. Prints `export` lines on stdout, everything else on stderr:
#     eval "$(scripts/cuda/setup.sh ~/.cache/pinion-cuda)"
set -euo pipefail
dir=${1:?usage: setup.sh DIR}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# PTX of 13.0 is what drivers from 580 on read; a newer compiler would need newer drivers.
pins=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85
  nvidia-cuda-runtime==13.0.96)
home=$dir/site/nvidia/cu13
stamp=$dir/.wheels-$(printf '%s\n' "${pins[@]}" | sha256sum | cut -c1-16)
if [ ! -e "$stamp" ]; then
  rm -rf "$dir/site" "$dir"/.wheels-*
  python3 -m pip install --quiet --no-deps --no-compile --no-cache-dir --only-binary=:all: \
    --disable-pip-version-check --root-user-action=ignore --target "$dir/site" "${pins[@]}" >&2
  rm -f "$home/lib/libnvvm.so.4" # 63 MB, only for programs that link it
  touch "$stamp"
fi
printf "export CUDA_HOME='%s' NVCC='%s/bin/nvcc'\n" "$home" "$home"
