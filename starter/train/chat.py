"""The chat format: ChatML, tools as signatures in the system message, tool calls as `<tool_call>{…}</tool_call>`.

`CHAT_TEMPLATE` is what ships; `render` does the same faster for training, and a check at export holds them equal.
"""

import json

CHAT_TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}
{{ content }}
{%- elif content -%}
{%- for part in content -%}
{{ part.text if part.text is defined else '' }}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- set system = text(messages[0].content) if messages and messages[0].role == 'system' else '' -%}
{%- if system or tools -%}
{{ '<|im_start|>system\\n' }}{{ system }}
{%- if tools -%}
{{ '\\n\\n' if system else '' }}Tools:
{%- for tool in tools -%}
{%- set function = tool.function if tool.function is defined else tool -%}
{{ ' ' if loop.first else ', ' }}{{ function.name }}(
{%- if function.parameters is defined and function.parameters.properties is defined -%}
{%- for name in function.parameters.properties -%}
{{ '' if loop.first else ', ' }}{{ name }}: {{ function.parameters.properties[name].type }}
{%- endfor -%}
{%- endif -%}
)
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if not (loop.first and message.role == 'system') -%}
{{ '<|im_start|>' + message.role + '\\n' }}{{ text(message.content) }}
{%- if message.tool_calls is defined and message.tool_calls -%}
{%- for call in message.tool_calls -%}
{{ '' if loop.first and not message.content else '\\n' }}<tool_call>{"name": "{{ call.function.name }}", "arguments": \
{{ call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}}</tool_call>
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


def signature(tool: dict) -> str:
    """`get_weather(city: string)` of an OpenAI tool definition."""
    properties = tool["function"].get("parameters", {}).get("properties", {})
    listed = ", ".join(f"{name}: {schema['type']}" for name, schema in properties.items())
    return f"{tool['function']['name']}({listed})"


def _content(message: dict) -> str:
    calls = [
        f'<tool_call>{{"name": "{call["function"]["name"]}", "arguments": {_arguments(call)}}}</tool_call>'
        for call in message.get("tool_calls") or []
    ]
    return "\n".join(([message["content"]] if message.get("content") else []) + calls)


def _arguments(call: dict) -> str:
    arguments = call["function"]["arguments"]
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def render(messages: list[dict], tools: list[dict], learn_past_calls: bool = False) -> list[tuple[str, bool]]:
    """The text of a conversation in pieces, each with whether the model is to learn it: answers are.

    Calls whose results follow are written by clients in many ways, so they are learned only if `learn_past_calls`.
    """
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    pieces = []
    if system or tools:
        listed = f"Tools: {', '.join(map(signature, tools))}" if tools else ""
        text = "\n\n".join(filter(None, (system, listed)))
        pieces.append((f"<|im_start|>system\n{text}<|im_end|>\n", False))
    for index, message in enumerate(messages):
        if index == 0 and message["role"] == "system":
            continue
        pieces.append((f"<|im_start|>{message['role']}\n", False))
        is_answer = message["role"] == "assistant" and (learn_past_calls or not message.get("tool_calls"))
        pieces.append((f"{_content(message)}<|im_end|>", is_answer))
        pieces.append(("\n", False))
    return pieces


def prompt(messages: list[dict], tools: list[dict]) -> str:
    """The text of a conversation up to where the assistant answers."""
    return "".join(text for text, _ in render(messages, tools)) + "<|im_start|>assistant\n"
