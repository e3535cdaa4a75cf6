"""What a skill produces: one task with one right answer."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Task:
    """Turns (OpenAI messages) that end before the answer, the tools they may use, and the exact answer expected.

    A tool call is expected as the text the model writes, `<tool_call>{…}</tool_call>`.
    """

    messages: list[dict]
    answer: str
    tools: list[dict] = field(default_factory=list)


Maker = Callable[[random.Random], Task]


def ask(question: str, answer: str, tools: list[dict] | None = None) -> Task:
    """A task of one user message."""
    return Task([{"role": "user", "content": question}], answer, tools or [])
