#!/usr/bin/env bash
# Real clients, as their users install them, against the node with its built-in model.
# Usage: tests/clients/run.sh [BINARY]. Exit status 77 means that this machine cannot install them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=${CARGO_TARGET_DIR:-target}
binary=$(realpath -m "${1:-$target/release/pinion}")
venv=$target/clients-venv

if [ ! -x "$binary" ]; then
  echo "there is no binary: $binary; build it with: cargo build --release" >&2
  exit 1
fi
if ! "$venv/bin/python" -c 'import openai' 2>/dev/null; then
  python3 -m venv "$venv" || exit 77
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/requirements.txt || exit 77
fi
exec "$venv/bin/python" tests/clients/test_openai.py "$binary"
