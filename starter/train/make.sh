#!/bin/sh
# Makes pinion-tiny from nothing: tokenizer, data, four phases of training, export, evaluation, probes.
# Usage: ./make.sh [PYTHON]
set -eu
python=${1:-python}
package=../pinion-tiny
mkdir -p build
export TOKENIZERS_PARALLELISM=false

"$python" tokenizer.py build/tokenizer.json

"$python" prepare.py build/tokenizer.json build/phase1.npz 420000 1 --learn-past-calls
"$python" train.py phases/1.json

# What lagged after the first phase gets a larger share in the second.
"$python" prepare.py build/tokenizer.json build/phase2.npz 180000 2 --learn-past-calls \
    compare=4 sort=6 spell=4 repeat=5 reverse=6 uppercase=4 capital=0.8 refuse=0.7
"$python" train.py phases/2.json

# So do the numbers in the third.
"$python" prepare.py build/tokenizer.json build/phase3.npz 130000 3 --learn-past-calls \
    add=2 compare=8 count=9 sort=10 spell=4 repeat=4 reverse=5 uppercase=5 capital=0.7 tool_result=2.5
"$python" train.py phases/3.json

# The fourth no longer learns past calls, and keeps to what lagged still.
"$python" prepare.py build/tokenizer.json build/phase4.npz 180000 4 \
    add=2 compare=6 count=10 sort=10 spell=4 repeat=3 reverse=7 uppercase=6 capital=0.7 tool_call=5
"$python" train.py phases/4.json

"$python" export.py build/phase4.pt build/tokenizer.json "$package/weights"
"$python" evaluate.py build/phase4.pt build/tokenizer.json 1000 "$package/eval.json"
"$python" probes.py "$package/weights" ../probes.json
