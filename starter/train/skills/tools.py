"""Calling one of the given tools, and answering from what a tool returned."""

import json
import random
from dataclasses import dataclass

import words as lists
from skills.task import Task

SKIES = ("sunny", "cloudy", "raining", "windy", "snowing", "foggy")


@dataclass
class Use:
    """One use of a tool: how a user asks for it, its arguments, what it returns, and the sentence made from that."""

    name: str
    question: str
    arguments: dict
    result: object
    sentence: str


def _weather(rng: random.Random) -> Use:
    city, sky, degrees = rng.choice(lists.CITIES), rng.choice(SKIES), rng.randint(0, 39)
    question = rng.choice((f"What is the weather in {city}?", f"How is the weather in {city}?", f"Weather in {city}?",
                           f"What's the weather like in {city}?"))
    result = {"sky": sky, "temperature": degrees}
    return Use("get_weather", question, {"city": city}, result, f"It is {sky} in {city}, {degrees} degrees.")


def _time(rng: random.Random) -> Use:
    city, time = rng.choice(lists.CITIES), f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
    question = rng.choice((f"What time is it in {city}?", f"Tell me the time in {city}."))
    return Use("get_time", question, {"city": city}, {"time": time}, f"It is {time} in {city}.")


def _multiply(rng: random.Random) -> Use:
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    question = rng.choice((f"What is {a} times {b}?", f"Multiply {a} by {b}.", f"{a} * {b} ="))
    return Use("multiply", question, {"a": a, "b": b}, {"result": a * b}, f"The result is {a * b}.")


def _email(rng: random.Random) -> Use:
    person, subject = rng.choice(lists.PEOPLE), " ".join(lists.words(rng, 1, 3))
    question = rng.choice((f"Email {person} about {subject}.", f"Send {person} an email about {subject}."))
    return Use("send_email", question, {"to": person, "subject": subject}, {"status": "sent"}, f"The email to {person} is sent.")


def _search(rng: random.Random) -> Use:
    query, hits = " ".join(lists.words(rng, 1, 4, 0.1)), lists.words(rng, 1, 3)
    question = rng.choice((f"Search for {query}.", f"Find {query}.", f"Look up {query}."))
    return Use("search", question, {"query": query}, {"results": hits}, f"I found: {', '.join(hits)}.")


def _timer(rng: random.Random) -> Use:
    minutes = rng.randint(2, 99)
    question = rng.choice((f"Set a timer for {minutes} minutes.", f"Wake me in {minutes} minutes."))
    return Use("set_timer", question, {"minutes": minutes}, {"status": "ok"}, f"The timer is set for {minutes} minutes.")


def _light(rng: random.Random) -> Use:
    room, state = rng.choice("kitchen bedroom garden office bathroom".split()), rng.choice(("on", "off"))
    question = rng.choice((f"Turn {state} the light in the {room}.", f"Switch the {room} light {state}."))
    return Use("set_light", question, {"room": room, "state": state}, {"status": "ok"}, f"The light in the {room} is {state}.")


def _stock(rng: random.Random) -> Use:
    item, amount = rng.choice(lists.NOUNS), rng.randint(0, 99)
    question = rng.choice((f"How many of item {item} are in stock?", f"Check the stock of {item}."))
    return Use("get_stock", question, {"item": item}, {"amount": amount}, f"There are {amount} of {item} in stock.")


def _named(rng: random.Random) -> Use:
    """A tool never seen before, asked for by its name with its arguments spelled out."""
    name = "_".join(lists.words(rng, 1, 2, 0.4))
    keys = list(dict.fromkeys(lists.words(rng, 1, 3, 0.3)))
    arguments = {key: rng.randint(0, 99) if rng.random() < 0.4 else lists.word(rng, 0.2) for key in keys}
    listed = " and ".join(f"{key} = {value}" for key, value in arguments.items())
    question = rng.choice((f"Call {name} with {listed}.", f"Use {name} with {listed}."))
    value = rng.choice((lists.word(rng, 0.2), rng.randint(0, 999)))
    return Use(name, question, arguments, {"result": value}, f"The result is {value}.")


USES = (_weather, _weather, _time, _multiply, _email, _search, _timer, _light, _stock, _named, _named)


def _definition(rng: random.Random, use: Use) -> dict:
    """The OpenAI definition of the tool that `use` uses."""
    kinds = {key: rng.choice(("integer", "integer", "number")) if isinstance(value, int) else "string"
             for key, value in use.arguments.items()}
    properties = {key: {"type": kind} for key, kind in kinds.items()}
    return {"type": "function", "function": {"name": use.name, "parameters": {"type": "object", "properties": properties}}}


def some_tools(rng: random.Random, use: Use | None, low: int, high: int) -> list[dict]:
    """Definitions of `low` to `high` tools in random order, that of `use` among them; parameters in any order too."""
    uses = {use.name: use} if use else {}
    for _ in range(rng.randint(low, high) - len(uses)):
        other = rng.choice(USES)(rng)
        uses.setdefault(other.name, other)
    definitions = [_definition(rng, one) for one in uses.values()]
    rng.shuffle(definitions)
    return definitions


def shuffled_arguments(rng: random.Random, use: Use) -> Use:
    """The same use with its arguments, and so its tool's parameters, in random order."""
    items = list(use.arguments.items())
    rng.shuffle(items)
    return Use(use.name, use.question, dict(items), use.result, use.sentence)


def _call_text(use: Use) -> str:
    return f"<tool_call>{json.dumps({'name': use.name, 'arguments': use.arguments})}</tool_call>"


def _uses(rng: random.Random) -> list[Use]:
    """One use; one time in eight, two of one tool that a single question asks for."""
    if rng.random() < 1 / 8:
        first, second = _weather(rng), _weather(rng)
        city = second.arguments["city"]
        first.question = f"What is the weather in {first.arguments['city']} and in {city}?"
        return [first, second]
    return [shuffled_arguments(rng, rng.choice(USES)(rng))]


def call(rng: random.Random) -> Task:
    """Call the right one of the given tools; where none fits, say so."""
    uses = _uses(rng)
    messages = [{"role": "user", "content": uses[0].question}]
    if rng.random() < 0.06:
        others = [tool for tool in some_tools(rng, None, 1, 3) if tool["function"]["name"] != uses[0].name]
        if others:
            return Task(messages, "I have no tool for that.", others)
    return Task(messages, "\n".join(map(_call_text, uses)), some_tools(rng, uses[0], 1, 4))


def use_result(rng: random.Random) -> Task:
    """Turn what the tool returned into a sentence."""
    uses = _uses(rng)
    separators = rng.choice(((", ", ": "), (",", ":")))
    calls = [{"id": f"call_{index}", "type": "function",
              "function": {"name": use.name, "arguments": json.dumps(use.arguments, separators=separators)}}
             for index, use in enumerate(uses)]
    messages = [{"role": "user", "content": uses[0].question}, {"role": "assistant", "content": None, "tool_calls": calls}]
    for index, use in enumerate(uses):
        items = list(use.result.items())
        rng.shuffle(items)
        content = json.dumps(dict(items), separators=separators)
        messages.append({"role": "tool", "tool_call_id": f"call_{index}", "content": content})
    return Task(messages, " ".join(use.sentence for use in uses), some_tools(rng, uses[0], 1, 3))
