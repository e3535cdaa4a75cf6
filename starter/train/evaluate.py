"""Scores a checkpoint on held-out prompts, a skill at a time; an answer counts only if every character is right.

Run: `python evaluate.py CHECKPOINT.pt TOKENIZER.json NUMBER [EVAL.json] [--wrong]`
"""

import json
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

import chat
from conversations import MIXTURE, make_conversation, make_task, question_of
from decode import answer_texts
from model import Llama, ModelConfig
from skills import SKILLS
from skills.task import Task

SEED = 20_000
TALK = "conversation"


def load(checkpoint: str) -> Llama:
    """The model with its weights rounded to bfloat16, as they ship, run in float32."""
    model = Llama(ModelConfig())
    state = torch.load(checkpoint)
    model.load_state_dict({name: tensor.to(torch.bfloat16).float() for name, tensor in state.items()})
    return model.eval()


def unseen_tasks(skill: str, number: int) -> list[Task]:
    """`number` different held-out tasks; for `conversation`, a task of any skill after earlier turns."""
    rng, tasks, seen = random.Random(f"{SEED} {skill}"), [], set()
    while len(tasks) < number:
        task = _after_other_turns(rng) if skill == TALK else make_task(rng, skill, held_out=True)
        if question_of(task) not in seen:
            seen.add(question_of(task))
            tasks.append(task)
    return tasks


def _after_other_turns(rng: random.Random) -> Task:
    earlier, tools = make_conversation(rng, MIXTURE)
    while tools:
        earlier, tools = make_conversation(rng, MIXTURE)
    last = make_task(rng, rng.choice([name for name in SKILLS if name != "remember"]), held_out=True)
    return Task([*earlier, *last.messages], last.answer, last.tools)


def score(model: Llama, tokenizer: Tokenizer, skill: str, number: int) -> tuple[int, list[tuple[str, str, str]]]:
    """How many of `number` are right, and the wrong ones: question, expected, given."""
    tasks = unseen_tasks(skill, number)
    given = answer_texts(model, tokenizer, [chat.prompt(task.messages, task.tools) for task in tasks])
    wrong = [(task.messages[-1]["content"], task.answer, text) for task, text in zip(tasks, given) if text != task.answer]
    return number - len(wrong), wrong


def main() -> None:
    """Score every skill, print the table, write it if a file is named."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--wrong"]
    checkpoint, tokenizer_path, number, *output = arguments
    torch.set_num_threads(1)
    model, tokenizer, table = load(checkpoint), Tokenizer.from_file(tokenizer_path), []
    for skill in [*SKILLS, TALK]:
        correct, wrong = score(model, tokenizer, skill, int(number))
        table.append({"skill": skill, "correct": correct, "total": int(number)})
        print(f"{skill:12} {correct} of {number}", flush=True)
        for question, expected, text in wrong[:5] if "--wrong" in sys.argv else []:
            print(f"    {question!r}\n      expected {expected!r}\n      given    {text!r}", flush=True)
    if output:
        Path(output[0]).write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
