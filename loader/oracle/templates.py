#!/usr/bin/env python3
"""Renders the templates beside this file with HF transformers into templates.json, the golden file of the template tests.

    python templates.py        (transformers 5.23, jinja2 3.1.6)
"""

import datetime
import json
import pathlib

from transformers.utils import chat_template_utils as hf

HERE = pathlib.Path(__file__).parent
NOW = 1_721_952_000  # 2024-07-26 00:00:00 UTC
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


class FrozenDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc)


hf.datetime = FrozenDatetime

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather now; <b>not</b> tomorrow's & it's free",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where, e.g. Zürich"},
                "days": {"type": "integer", "description": " How many ", "default": 1},
                "scale": {"type": ["string", "number"], "description": "°C or 0.5"},
            },
            "required": ["city"],
        },
    },
}
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time",
        "parameters": {"type": "object", "properties": {}},
    },
}


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def system(content):
    return {"role": "system", "content": content}


def call(name, arguments, identifier):
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(content, identifier):
    return {"role": "tool", "tool_call_id": identifier, "content": content}


CALLS = {
    "role": "assistant",
    "content": None,
    "tool_calls": [call("get_weather", {"city": "Zürich", "days": 2, "exact": True, "x": 1.5}, "abcdef123")],
}
TWO_CALLS = {
    "role": "assistant",
    "content": "Let me see.",
    "tool_calls": [call("get_time", {}, "abcdef123"), call("get_weather", {"city": "Oslo"}, "abcdef124")],
}

CASES = {
    "user": dict(messages=[user("Hello, wörld <3 & 'you'")]),
    "user_without_prompt": dict(messages=[user("Hello")], add_generation_prompt=False),
    "system": dict(messages=[system(" Be brief. "), user(" Hi \n")]),
    "turns": dict(messages=[system("S"), user("1"), assistant("2\n"), user("3"), assistant(" 4 "), user("5")]),
    "ends_with_assistant": dict(messages=[user("1"), assistant("2")], add_generation_prompt=False),
    "wrong_order": dict(messages=[user("1"), user("2")]),
    "assistant_first": dict(messages=[assistant("1"), user("2")]),
    "empty_content": dict(messages=[user("")]),
    "tools": dict(messages=[user("Weather?")], tools=[WEATHER, TIME]),
    "tools_and_system": dict(messages=[system("S"), user("Weather?")], tools=[TIME]),
    "tool_call": dict(messages=[user("Weather?"), CALLS], tools=[WEATHER], add_generation_prompt=False),
    "tool_result": dict(messages=[user("Weather?"), CALLS, result("sunny, 25°", "abcdef123")], tools=[WEATHER]),
    "tool_results": dict(
        messages=[
            user("Both?"),
            TWO_CALLS,
            result("12:00", "abcdef123"),
            result('{"t": 3}', "abcdef124"),
            assistant("Noon, 3°."),
            user("Thanks"),
        ],
        tools=[WEATHER, TIME],
    ),
    "short_call_id": dict(
        messages=[user("?"), {"role": "assistant", "content": "", "tool_calls": [call("get_time", {}, "short")]}],
        tools=[TIME],
    ),
    "thinking": dict(messages=[user("1"), assistant("<think>\nhm\n</think>\n\nyes"), user("2"), assistant("<think>a</think>b")], add_generation_prompt=False),
    "reasoning_content": dict(messages=[user("1"), {"role": "assistant", "content": "yes", "reasoning_content": "\nhm\n"}], add_generation_prompt=False),
    "no_thinking": dict(messages=[user("1")], extra={"enable_thinking": False}),
    "date_given": dict(messages=[user("1")], extra={"date_string": "1 Jan 2000"}),
    "tools_in_system": dict(messages=[system("S"), user("1")], tools=[WEATHER], extra={"tools_in_user_message": False}),
    "builtin_tools": dict(messages=[user("1"), {"role": "assistant", "tool_calls": [call("brave_search", {"query": "x"}, "abcdef123")]}], extra={"builtin_tools": ["brave_search", "code_interpreter"]}),
}
PARTS = dict(messages=[user([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]), assistant("three"), user("four")])


def render(template, case):
    case = {"tools": None, "extra": {}, "add_generation_prompt": True} | case
    variables = SPECIAL | case["extra"]
    golden = dict(case)
    try:
        rendered, _ = hf.render_jinja_template(
            conversations=[case["messages"]],
            tools=case["tools"],
            chat_template=template,
            add_generation_prompt=case["add_generation_prompt"],
            **variables,
        )
        golden["rendered"] = rendered[0]
    except Exception as error:  # the message is part of what is compared
        golden["error"] = str(error)
        golden["raised"] = type(error).__name__ == "TemplateError"
    return golden


def main():
    golden = []
    for file in sorted((HERE / "templates").glob("*.jinja")):
        template = file.read_text()
        cases = CASES | ({"parts": PARTS} if file.stem in ("parts_generation", "pinion_tiny") else {})
        for name, case in cases.items():
            # As `tool_use` among named templates it is never rendered without tools.
            if file.stem == "hermes_tool_use" and "tools" not in case:
                continue
            golden.append({"template": file.stem, "case": name, **render(template, case)})
    text = json.dumps({"unix_seconds": NOW, "special": SPECIAL, "cases": golden}, ensure_ascii=False, indent=1)
    (HERE / "templates.json").write_text(text + "\n")
    print(len(golden), "cases,", sum("error" in g for g in golden), "of them errors")


if __name__ == "__main__":
    main()
