"""Scores a checkpoint on held-out prompts, a skill at a time; an answer counts only if every character is right.

Run: `python evaluate.py CHECKPOINT.pt TOKENIZER.json NUMBER [EVAL.json] [--wrong]`
"""

import json
import random
import re
import sys
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer

import chat
import words as lists
from conversations import MIXTURE, make_conversation, make_task, opening
from decode import answer_texts
from model import Llama, ModelConfig
from skills import SKILLS
from skills.task import Task

SEED = 20_001


def load(checkpoint: str) -> Llama:
    """The model with its weights rounded to bfloat16, as they ship, run in float32."""
    model = Llama(ModelConfig())
    state = torch.load(checkpoint)
    model.load_state_dict({name: tensor.to(torch.bfloat16).float() for name, tensor in state.items()})
    return model.eval()


def unseen_tasks(skill: str, number: int) -> list[Task]:
    """`number` held-out tasks, no two with the same messages and tools."""
    rng, tasks = random.Random(f"{SEED} {skill}"), {}
    while len(tasks) < number:
        task = MAKERS[skill](rng) if skill in MAKERS else make_task(rng, skill, held_out=True)
        tasks.setdefault(chat.prompt(task.messages, task.tools), task)
    return list(tasks.values())


def _tool_kind(task: Task) -> str:
    """What a task of the skill `tool_call` asks for: a tool known from training, a new one, or none that fits."""
    if not task.answer.startswith("<tool_call>"):
        return "no_tool"
    return "new_tool" if re.search(r"(Call|Use) .* with .* = ", task.messages[-1]["content"]) else "tool_call"


def _tool_task(kind: str, rng: random.Random) -> Task:
    while True:
        task = make_task(rng, "tool_call", held_out=True)
        if _tool_kind(task) == kind:
            return task


def _listed_words_only(skill: str, rng: random.Random) -> Task:
    """A held-out task of a skill over words, without made-up ones."""
    while True:
        task = make_task(rng, skill, held_out=True)
        answer = task.answer.replace("-", "") if skill == "spell" else task.answer
        if set(re.findall("[a-z]+", answer.lower())) <= set(lists.WORDS):
            return task


def _question_about_itself(rng: random.Random) -> Task:
    """A held-out question, half of them opened twice: of once opened ones there are not a thousand."""
    task = make_task(rng, "self", held_out=True)
    if rng.random() < 0.5:
        task.messages[-1]["content"] = opening(rng) + task.messages[-1]["content"]
    return task


def _after_other_turns(rng: random.Random) -> Task:
    """A task of any skill after the turns of a whole conversation."""
    earlier, tools = make_conversation(rng, MIXTURE)
    while tools:
        earlier, tools = make_conversation(rng, MIXTURE)
    last = make_task(rng, rng.choice([name for name in SKILLS if name != "remember"]), held_out=True)
    return Task([*earlier, *last.messages], last.answer, last.tools)


MAKERS = {kind: partial(_tool_task, kind) for kind in ("tool_call", "new_tool", "no_tool")}
MAKERS |= {f"{skill}_listed": partial(_listed_words_only, skill) for skill in ("spell", "repeat", "reverse", "uppercase")}
MAKERS |= {"self": _question_about_itself, "conversation": _after_other_turns}


def score(model: Llama, tokenizer: Tokenizer, skill: str, number: int) -> tuple[int, list[tuple[str, str, str]]]:
    """How many of `number` are right, and the wrong ones: question, expected, given."""
    tasks = unseen_tasks(skill, number)
    given = answer_texts(model, tokenizer, [chat.prompt(task.messages, task.tools) for task in tasks])
    pairs = [(task, text) for task, text in zip(tasks, given) if text != task.answer]
    return number - len(pairs), [(task.messages[-1]["content"], task.answer, text) for task, text in pairs]


def main() -> None:
    """Score every skill, print the table, write it if a file is named."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--wrong"]
    checkpoint, tokenizer_path, number, *output = arguments
    torch.set_num_threads(1)
    model, tokenizer, table = load(checkpoint), Tokenizer.from_file(tokenizer_path), []
    for skill in dict.fromkeys([*SKILLS, *MAKERS]):
        correct, wrong = score(model, tokenizer, skill, int(number))
        table.append({"skill": skill, "correct": correct, "total": int(number)})
        print(f"{skill:12} {correct} of {number}", flush=True)
        for question, expected, text in wrong[:5] if "--wrong" in sys.argv else []:
            print(f"    {question!r}\n      expected {expected!r}\n      given    {text!r}", flush=True)
    if output:
        Path(output[0]).write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
