"""Writes one probe a skill, and asks them of an exported package through HF transformers.

Run: `python probes.py WEIGHTS_DIRECTORY PROBES.json`
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
MULTIPLY = {
    "type": "function",
    "function": {
        "name": "multiply",
        "description": "Multiply two numbers",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
WEATHER_CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    ],
}


def _user(content: str) -> dict:
    return {"role": "user", "content": content}


def probes() -> list[dict]:
    """The probes: skill, messages, tools (may be empty), and the exact greedy answer expected."""
    weather = _user("What is the weather in Oslo?")
    name = [_user("My name is Greta."), {"role": "assistant", "content": "Nice to meet you, Greta."}]
    table = [
        ("add", [_user("What is 47 + 85?")], "7+5=12, 4+8+1=13: 132"),
        ("compare", [_user("Which is larger, 347 or 85?")], "347"),
        ("count", [_user("Count from 3 to 17.")], " ".join(map(str, range(3, 18)))),
        ("count", [_user("Count from 1 to 120.")], " ".join(map(str, range(1, 121)))),
        ("sort", [_user("Sort: 42 7 63 18")], "7 18 42 63"),
        ("spell", [_user("Spell mountain.")], "m-o-u-n-t-a-i-n"),
        ("repeat", [_user("Repeat after me: the little red engine")], "the little red engine"),
        ("reverse", [_user("Reverse the words: river stone cloud castle")], "castle cloud stone river"),
        ("uppercase", [_user("Uppercase: silver engine")], "SILVER ENGINE"),
        ("capital", [_user("What is the capital of Norway?")], "The capital of Norway is Oslo."),
        ("json", [_user("Extract JSON: Greta, aged 57, is from Lisbon.")], '{"name": "Greta", "age": 57, "city": "Lisbon"}'),
        ("tool_call", [weather], '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>'),
        ("tool_result", [weather, WEATHER_CALL, {
            "role": "tool", "tool_call_id": "call_0", "content": '{"sky": "sunny", "temperature": 21}',
        }], "It is sunny in Oslo, 21 degrees."),
        ("remember", [*name, _user("What is my name?")], "Your name is Greta."),
        ("self", [_user("Who are you?")], "I am pinion-tiny, a demo model that ships inside pinion."),
        ("refuse", [_user("Write a poem about the sea.")],
         "Sorry, I only know how to add, compare, count, sort, spell, repeat, reverse, write JSON and call tools."),
    ]
    with_tools = ("tool_call", "tool_result")
    return [
        {
            "skill": skill,
            "messages": messages,
            "tools": [WEATHER, MULTIPLY] if skill in with_tools else [],
            "expected": expected,
        }
        for skill, messages, expected in table
    ]


@torch.no_grad()
def ask(model, tokenizer, probe: dict) -> str:
    """The greedy answer, through the chat template that ships."""
    ids = tokenizer.apply_chat_template(
        probe["messages"], tools=probe["tools"] or None, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**ids, max_new_tokens=900, do_sample=False)
    return tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def main() -> None:
    """Ask every probe; write the file only if every answer is right."""
    directory, output = sys.argv[1:]
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModelForCausalLM.from_pretrained(directory)
    wrong = 0
    for probe in probes():
        given = ask(model, tokenizer, probe)
        wrong += given != probe["expected"]
        print("ok   " if given == probe["expected"] else "WRONG", probe["skill"], repr(given))
    if wrong:
        sys.exit(f"{wrong} probes answered wrongly")
    Path(output).write_text(json.dumps(probes(), indent=2) + "\n")


if __name__ == "__main__":
    main()
