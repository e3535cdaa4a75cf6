"""Conversations: tasks put together, and which of them are held out for the evaluation."""

import hashlib
import json
import random

import words as lists
from skills import SKILLS
from skills.task import Task
from skills.tools import some_tools

HELD_OUT_SHARE = 16
MIXTURE = {
    "add": 4, "compare": 2, "count": 2, "sort": 4, "spell": 3, "repeat": 3, "reverse": 4, "uppercase": 3, "capital": 1,
    "json": 2, "tool_call": 4, "tool_result": 2, "remember": 1, "self": 1.5, "refuse": 1,
}
SYSTEM_PROMPTS = (
    "You are a helpful assistant.", "You are pinion-tiny.", "Answer briefly.", "Be concise.",
    "You are a friendly assistant.", "You are a helpful assistant that can call tools.", "Answer the question.",
)


def opening(rng: random.Random) -> str:
    """What people write before a question."""
    person = rng.choice(lists.PEOPLE)
    return rng.choice((
        "Hello. ", "Hi! ", "Please help me. ", "Hello, pinion-tiny. ", "Quick question: ", "One more: ", "Now this: ",
        f"{person} asks: ", f"A question from {person}: ",
        f"For {rng.choice(lists.WORDS)}: ", f"{rng.choice(lists.DAYS)}: ",
    ))


def question_of(task: Task) -> str:
    """What the held-out split is decided by: everything the task shows the model, tools left out."""
    return json.dumps(task.messages)


def is_held_out(task: Task) -> bool:
    """Whether this task belongs to the evaluation (one in sixteen) and is never trained on."""
    digest = hashlib.blake2b(question_of(task).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") % HELD_OUT_SHARE == 0


def make_task(rng: random.Random, skill: str, held_out: bool) -> Task:
    """A task of `skill` from the wanted side of the split."""
    while True:
        task = SKILLS[skill](rng)
        if rng.random() < 0.15 or (held_out and skill in ("self", "capital") and rng.random() < 0.8):
            question = task.messages[-1 if skill != "tool_result" else 0]
            question["content"] = opening(rng) + question["content"]
        if is_held_out(task) == held_out:
            return task


def make_conversation(rng: random.Random, mixture: dict[str, float]) -> tuple[list[dict], list[dict]]:
    """Messages and tools of a conversation of one to three answered tasks for training."""
    names, weights = list(mixture), list(mixture.values())
    messages, tools, seen = [], [], set()
    if rng.random() < 0.2:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
    if rng.random() < 0.08:
        tools = some_tools(rng, None, 1, 3)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        skill = rng.choices(names, weights)[0]
        task = make_task(rng, skill, held_out=False)
        if (task.tools and tools) or (skill == "remember" and skill in seen):
            continue
        seen.add(skill)
        tools = tools or task.tools
        messages += [*task.messages, {"role": "assistant", "content": task.answer}]
    return (messages, tools) if seen else make_conversation(rng, mixture)
