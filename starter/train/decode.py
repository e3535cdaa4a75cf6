"""Greedy decoding of many prompts at once, prompts of equal length together so that nothing is padded."""

from collections import defaultdict

import torch
from tokenizers import Tokenizer

from model import Llama

MAX_ROWS = 128


@torch.no_grad()
def greedy(model: Llama, prompts: list[list[int]], end: int, limit: int) -> list[list[int]]:
    """For each prompt the greedy continuation, up to and without `end`, at most `limit` tokens."""
    by_length = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_length[len(prompt)].append(index)
    answers: list[list[int]] = [[] for _ in prompts]
    for indexes in by_length.values():
        for begin in range(0, len(indexes), MAX_ROWS):
            _decode_rows(model, prompts, indexes[begin : begin + MAX_ROWS], answers, (end, limit))
    return answers


def _decode_rows(
    model: Llama, prompts: list[list[int]], rows: list[int], answers: list[list[int]], stop: tuple[int, int]
) -> None:
    end, limit = stop
    caches: list[list] = [[] for _ in model.layers]
    ids = torch.tensor([prompts[row] for row in rows])
    for _ in range(limit):
        following = model.logits(model(ids, caches)[:, -1]).argmax(-1)
        going = following != end
        for row, token in zip(rows, following.tolist()):
            if token != end:
                answers[row].append(token)
        if not going.any():
            return
        if not going.all():
            keep = going.nonzero()[:, 0]
            rows = [rows[index] for index in keep.tolist()]
            caches = [[k[keep], v[keep]] for k, v in caches]
            following = following[keep]
        ids = following[:, None]


def answer_texts(model: Llama, tokenizer: Tokenizer, prompts: list[str], limit: int = 900) -> list[str]:
    """Greedy answers as text."""
    encoded = [tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
    answers = greedy(model, encoded, tokenizer.token_to_id("<|im_end|>"), limit)
    return [tokenizer.decode(ids, skip_special_tokens=False) for ids in answers]
