"""Writes training conversations as token arrays, so that training itself only reads.

Run: `python prepare.py TOKENIZER.json OUTPUT.npz NUMBER SEED [--learn-past-calls] [SKILL=WEIGHT …]`
"""

import random
import sys

import numpy as np
from tokenizers import Tokenizer

import chat
from conversations import MIXTURE, make_conversation

LONGEST = 768


class Encoder:
    """Encodes pieces of text and remembers the short ones."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        if text in self.known:
            return self.known[text]
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        if len(self.known) < 200_000 and len(text) < 40:
            self.known[text] = ids
        return ids


def encode_conversation(encode: Encoder, pieces: list[tuple[str, bool]]) -> tuple[list[int], list[bool]]:
    """Token ids of a rendered conversation and, for each, whether it is to be learned."""
    ids, learned = [], []
    for text, is_answer in pieces:
        piece = encode(text)
        ids += piece
        learned += [is_answer] * len(piece)
    return ids, learned


def prepare(
    tokenizer: Tokenizer, number: int, seed: int, mixture: dict[str, float], learn_past_calls: bool
) -> dict[str, np.ndarray]:
    """`number` conversations end to end: `ids`, `learned`, and `ends` (where each conversation ends)."""
    rng, encode = random.Random(seed), Encoder(tokenizer)
    all_ids, all_learned, ends, total = [], [], [], 0
    while len(ends) < number:
        ids, learned = encode_conversation(encode, chat.render(*make_conversation(rng, mixture), learn_past_calls))
        if len(ids) > LONGEST + 1:
            continue
        all_ids.append(np.array(ids, np.uint16))
        all_learned.append(np.array(learned, bool))
        total += len(ids)
        ends.append(total)
    return {"ids": np.concatenate(all_ids), "learned": np.concatenate(all_learned), "ends": np.array(ends)}


def main() -> None:
    """Prepare and say how much."""
    flag = "--learn-past-calls"
    tokenizer_path, output, number, seed, *changes = [argument for argument in sys.argv[1:] if argument != flag]
    mixture = MIXTURE | {name: float(weight) for name, weight in (change.split("=") for change in changes)}
    data = prepare(Tokenizer.from_file(tokenizer_path), int(number), int(seed), mixture, flag in sys.argv)
    np.savez(output, **data)
    print(f"{number} conversations, {len(data['ids'])} tokens, {int(data['learned'].sum())} of them learned")


if __name__ == "__main__":
    main()
