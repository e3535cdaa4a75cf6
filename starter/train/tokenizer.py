"""Trains the tokenizer: byte-level BPE in which every listed word is one token and every digit is its own.

Run: `python tokenizer.py OUTPUT.json`
"""

import json
import random
import sys
from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import chat
import words as lists
from conversations import MIXTURE, opening
from skills import SKILLS

VOCAB_SIZE = 1536
LISTED_REPEATS, TASKS = 1500, 20000
END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TOOL_TAGS = ("<tool_call>", "</tool_call>")
SPLIT = r" ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]+|\s+"
PIECES_FROM_LETTERS = ("spell", "uppercase")


def _listed_words() -> Iterator[str]:
    for word in [*lists.WORDS, *lists.PEOPLE, *lists.CITIES]:
        yield from (word, f" {word}")
    for word in [*lists.CAPITALS, *lists.DAYS]:
        yield f" {word}"
    yield from ("Repeat", "Spell", "Sort", "age", "get", "name")


def _corpus(rng: random.Random) -> Iterator[str]:
    """Listed words often enough to become whole, then tasks (without the answers that are letters one by one)."""
    for _ in range(LISTED_REPEATS):
        yield from _listed_words()
    for _ in range(TASKS):
        skill = rng.choice(list(MIXTURE))
        task = SKILLS[skill](rng)
        yield opening(rng)
        yield chat.prompt(task.messages, task.tools) + ("" if skill in PIECES_FROM_LETTERS else task.answer)


def train(seed: int = 0) -> Tokenizer:
    """The tokenizer; the same seed gives the same one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True, normalized=False) for text in (END_OF_TEXT, START, END)]
    special += [AddedToken(text, normalized=False) for text in TOOL_TAGS]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_corpus(random.Random(seed)), trainer)
    return _with_visible_tool_tags(tokenizer)


def _with_visible_tool_tags(tokenizer: Tokenizer) -> Tokenizer:
    """The trainer marks every token of its own as special; tool tags must survive decoding, so they are not."""
    state = json.loads(tokenizer.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] not in TOOL_TAGS
    return Tokenizer.from_str(json.dumps(state))


def main() -> None:
    """Train, say which listed words are not whole, save."""
    tokenizer = train()
    split = [word for word in _listed_words() if " " not in word.strip() and len(tokenizer.encode(word).ids) > 1]
    print("vocabulary", tokenizer.get_vocab_size(), "listed words in pieces:", split)
    tokenizer.save(sys.argv[1])


if __name__ == "__main__":
    main()
