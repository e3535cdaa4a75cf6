"""OpenAI's own Python client against a node with the built-in model.

Usage: test_openai.py BINARY. Every function whose name starts with `test_` is a test; it gets the
node's address. Prints a line for each, then `N passed, N failed`.
"""

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import traceback

import openai
from openai import OpenAI

MODEL = "pinion-tiny"
KEY = "key-of-the-test"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@contextlib.contextmanager
def node(binary):
    """A node on a free port, ended with the block."""
    with tempfile.TemporaryDirectory() as home:
        process = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--api-key", KEY],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=home,
        )
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                found = re.search(r"listening on (http://\S+)", line)
                if found:
                    yield found[1]
                    return
            raise RuntimeError("the node does not start:\n" + "".join(lines))
        finally:
            process.terminate()
            process.stderr.read()
            process.wait(timeout=60)


def client(address, **options):
    # The client repeats 503 with Retry-After, which is how it waits for the model to load.
    return OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=10, **options)


def ask(address, content, **options):
    options = {"temperature": 0, "max_tokens": 64} | options
    return client(address).chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": content}], **options
    )


def raises(error, call):
    try:
        call()
    except error as raised:
        return raised
    raise AssertionError(f"{error.__name__} was expected")


def test_models_are_listed_and_retrieved(address):
    api = client(address)
    assert [model.id for model in api.models.list()] == [MODEL]
    assert api.models.retrieve(MODEL).object == "model"


def test_a_chat_answer_is_typed_and_right(address):
    answer = ask(address, "Count from 3 to 7.")
    choice = answer.choices[0]
    assert choice.message.content == "3 4 5 6 7", choice
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens is not None
    assert answer.object == "chat.completion" and answer.model == MODEL


def test_a_stream_has_the_same_text_and_the_usage_last(address):
    whole = ask(address, "Count from 3 to 9.")
    options = {"include_usage": True}
    chunks = list(ask(address, "Count from 3 to 9.", stream=True, stream_options=options))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content == "3 4 5 6 7 8 9", text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1


def test_the_streaming_helper_adds_the_chunks_up(address):
    with client(address).chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": "Count from 3 to 7."}],
        temperature=0,
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "content.delta" in kinds and final.choices[0].message.content == "3 4 5 6 7"


def test_the_same_seed_gives_the_same_text(address):
    texts = {
        ask(address, "Count from 1 to 20.", temperature=2, seed=11).choices[0].message.content
        for _ in range(3)
    }
    assert len(texts) == 1, texts


def test_limits_and_stop_strings_end_the_text(address):
    cut = ask(address, "Count from 3 to 17.", max_tokens=3).choices[0]
    assert cut.finish_reason == "length", cut
    stopped = ask(address, "Count from 3 to 17.", stop=["6"]).choices[0]
    assert stopped.message.content.strip() == "3 4 5" and stopped.finish_reason == "stop", stopped


def test_choices_and_logprobs_are_typed(address):
    answer = ask(address, "Count from 3 to 7.", n=2, logprobs=True, top_logprobs=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    tokens = answer.choices[0].logprobs.content
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)
    assert tokens[0].token == tokens[0].top_logprobs[0].token


def test_completions_take_texts_and_tokens(address):
    api = client(address)
    answer = api.completions.create(
        model=MODEL, prompt=["a", "b"], max_tokens=2, temperature=0, logprobs=1,
        extra_body={"ignore_eos": True},
    )
    assert answer.object == "text_completion" and len(answer.choices) == 2
    assert answer.usage.completion_tokens == 4, answer.usage
    assert len(answer.choices[0].logprobs.tokens) == 2
    by_tokens = api.completions.create(model=MODEL, prompt=[5, 6, 7], max_tokens=1, stream=True)
    assert list(by_tokens)[-1].choices[0].finish_reason in ("stop", "length")


def test_tool_calls_are_typed_whole_and_streamed(address):
    question = "What is the weather in Nairobi?"
    choice = ask(address, question, tools=[WEATHER]).choices[0]
    assert choice.finish_reason == "tool_calls", choice
    call = choice.message.tool_calls[0]
    assert call.type == "function" and call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Nairobi"}

    chunks = ask(address, question, tools=[WEATHER], stream=True)
    deltas = [d for c in chunks for d in c.choices[0].delta.tool_calls or []]
    assert deltas[0].function.name == "get_weather" and deltas[0].id
    assert all(delta.index == 0 for delta in deltas)
    arguments = "".join(delta.function.arguments or "" for delta in deltas)
    assert json.loads(arguments) == {"city": "Nairobi"}


def test_a_tool_result_is_taken(address):
    arguments = json.dumps({"city": "Nairobi"})
    function = {"name": "get_weather", "arguments": arguments}
    answer = client(address).chat.completions.create(
        model=MODEL,
        temperature=0,
        tools=[WEATHER],
        messages=[
            {"role": "user", "content": "What is the weather in Nairobi?"},
            {"role": "assistant", "content": None,
             "tool_calls": [{"id": "call_1", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "call_1", "content": json.dumps({"sky": "raining", "temperature": 21})},
        ],
    )
    content = answer.choices[0].message.content
    assert content == "It is raining in Nairobi, 21 degrees.", content


def test_errors_have_the_classes_of_the_client(address):
    api = client(address)
    bad = raises(openai.BadRequestError, lambda: ask(address, "hi", temperature=9))
    assert bad.param == "temperature" and bad.code == "invalid_value", bad.body
    assert "from 0 to 2" in bad.message
    unknown = raises(
        openai.NotFoundError,
        lambda: api.chat.completions.create(model="x", messages=[{"role": "user", "content": "a"}]),
    )
    assert unknown.code == "model_not_found"
    wrong = OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0)
    raises(openai.AuthenticationError, lambda: list(wrong.models.list()))
    forced = raises(
        openai.BadRequestError, lambda: ask(address, "hi", tools=[WEATHER], tool_choice="required")
    )
    assert forced.param == "tool_choice" and forced.code == "unsupported_parameter"
    long = raises(openai.BadRequestError, lambda: ask(address, "word " * 5000))
    assert "context" in long.code or "long" in long.message, long.body
    raises(openai.BadRequestError, lambda: ask(address, "hi", stream=True, top_p=7))


def test_a_stream_can_be_left(address):
    for _ in range(20):
        stream = ask(address, "Count from 1 to 99.", stream=True, max_tokens=400)
        next(iter(stream))
        stream.close()
    assert ask(address, "Count from 3 to 7.").choices[0].message.content == "3 4 5 6 7"


def main():
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    failed = 0
    with node(sys.argv[1]) as address:
        for name, test in tests:
            try:
                test(address)
                print(f"ok      {name}")
            except Exception:
                failed += 1
                print(f"FAILED  {name}\n{traceback.format_exc()}")
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
