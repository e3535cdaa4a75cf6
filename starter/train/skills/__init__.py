"""The skills: each makes one task (the turns up to the answer, the tools if any, and the one right answer)."""

from skills import numbers, records, self_knowledge, tools, words
from skills.task import Maker

SKILLS: dict[str, Maker] = {
    "add": numbers.add,
    "compare": numbers.compare,
    "count": numbers.count,
    "sort": numbers.sort,
    "spell": words.spell,
    "repeat": words.repeat,
    "reverse": words.reverse,
    "uppercase": words.uppercase,
    "capital": words.capital,
    "json": records.extract,
    "tool_call": tools.call,
    "tool_result": tools.use_result,
    "remember": self_knowledge.remember,
    "self": self_knowledge.about_itself,
    "refuse": self_knowledge.refuse,
}
