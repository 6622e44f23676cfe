"""The wire format: the one place that turns a conversation into text, and a reply back into a decision.

Training, the Hugging Face engine, the template inside the GGUF, the agent loop, the grammar and the parser
all go through this file. An assistant turn is `<think>…</think>` and then one or more
`<tool_call>{"name":…,"arguments":{…}}</tool_call>`, or the plain answer, under every chat template.

Does not guard against: what a tool call would do (that is the broker's work).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jinja2.sandbox import ImmutableSandboxedEnvironment

from devices.errors import RefusedError, UsageError
from devices.site.schema import DataSchema, Value
from devices.site.site import Site
from devices.site.tools import Tool, ToolCall, command_of, tools_of
from edge_agent.wire.markers import CALL, END_CALL, END_THINK, MARKERS, THINK
from edge_agent.wire.spelling import NO_WORDS, SiteWords, usual_spelling, words_of

TEMPLATES_FOLDER = Path(__file__).parent / "templates"
WIRE_FORMAT = "wire/4"  # how turns are written below; a change of it is another contract
REQUEST = "Request: "
TOOLS_HEADING = "Tools:"
END_OF_TURN = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "mistral": "</s>", "phi3": "<|end|>", "alpaca": "</s>"}
Role = Literal["system", "user", "assistant", "tool"]


class ContractChanged(RefusedError):
    """What would run is not what was trained."""


@dataclass(frozen=True)
class Message:
    """One turn. `thought` and `calls` belong to the assistant only."""

    role: Role
    text: str
    thought: str = ""
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Segment:
    """A stretch of rendered text, and whether the loss sees it."""

    text: str
    is_trained: bool


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template's source, which Hugging Face and the box render to the same bytes."""

    name: str
    source: str
    end_of_turn: str

    @cached_property
    def _compiled(self) -> Any:
        # trim_blocks and lstrip_blocks as in transformers' _compile_jinja_template (utils/chat_template_utils.py)
        return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(self.source)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """Return the text of a conversation; with the generation prompt, ready for the assistant's reply."""
        plain = [{"role": message.role, "content": body_of(message)} for message in messages]
        return str(self._compiled.render(messages=plain, add_generation_prompt=add_generation_prompt))

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """Return the rendered conversation, cut where training starts and stops.

        Every assistant turn is trained from its first character to its end-of-turn token; nothing else is.

        Raises:
            ContractChanged: the template is not append-only, so training and running would differ.
        """
        result, done = [], ""
        for count, message in enumerate(messages, start=1):
            if message.role != "assistant":
                continue
            head = self.render(messages[: count - 1], add_generation_prompt=True)
            whole = self.render(messages[:count], add_generation_prompt=False)
            reply = body_of(message) + self.end_of_turn
            if not head.startswith(done) or not whole.startswith(head + reply):
                raise ContractChanged(f"template {self.name} does not append turn {count} to what came before")
            result += [Segment(head[len(done) :], False), Segment(reply, True)]
            done = head + reply
        rest = self.render(messages, add_generation_prompt=False)[len(done) :]
        return [*result, Segment(rest, False)] if rest else result


def load_template(name: str) -> ChatTemplate:
    """Return one of the templates that ship with Edgewright. Raises UsageError naming them if there is no such one.

    Families differ in what stands around a turn and in how it ends; what stands in it is the same (body_of). Those
    without a turn for results give them as the user's, headed `Results:` or, in Alpaca, `### Input:`. A text starts
    with the family's BOS token where it wants one; nothing else adds any.
    """
    if name not in END_OF_TURN:
        raise UsageError(f"no template is called {name!r}", hint=f"templates: {', '.join(END_OF_TURN)}")
    source = (TEMPLATES_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return ChatTemplate(name, source, END_OF_TURN[name])


@dataclass(frozen=True)
class Contract:
    """What training and running must agree on, to the byte.

    `words` is what requests are spelled by; it is free: a new name of a device needs no training.
    """

    template: ChatTemplate
    system_text: str
    tools: tuple[Tool, ...]
    words: SiteWords = NO_WORDS

    @property
    def digest(self) -> str:
        """SHA-256 in hex of wire format, template, system prompt and tool schemas."""
        parts = [
            WIRE_FORMAT,
            self.template.source,
            self.system_text,
            *(compact_json(tool.openai()) for tool in self.tools),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def contract_of(site: Site, template: ChatTemplate) -> Contract:
    """Return the contract that a site and a template make."""
    tools = tuple(tools_of(site))
    return Contract(template, system_text(site.title, tools), tools, words_of(site))


def require_contract(expected: str, actual: str, what: str) -> None:
    """Raise ContractChanged unless both digests are equal."""
    if expected != actual:
        raise ContractChanged(
            f"{what} was trained for another contract ({expected[:12]}, this site makes {actual[:12]})",
            hint="template, system prompt or tools changed: train again for this site, or use the site it was made for",
        )


def system_text(title: str, tools: Iterable[Tool]) -> str:
    """Return the static prompt: who the assistant is and every tool's signature, one a line."""
    lines = [
        f"You control {title}. Think first, then call tools or answer.",
        "Act only when asked to. Values outside a range, unknown devices and missing values are not called.",
        TOOLS_HEADING,
    ]
    return "\n".join([*lines, *(f" {signature(tool)}" for tool in tools)])  # the blank: see user_message


def signature(tool: Tool) -> str:
    """Return a tool on one line: `light_brightness(device: a | b, brightness: 0..100 percent)`."""
    arguments = [devices_text(tool)]
    arguments += [argument_text(name, schema) for name, schema in tool.input.items()]
    return f"{tool.name}({', '.join(arguments)})"


def devices_text(tool: Tool) -> str:
    """Return a tool's devices as signatures, and thoughts that copy from them, write them: `device: a | b`."""
    return f"device: {' | '.join(tool.devices)}"


def argument_text(name: str, schema: DataSchema) -> str:
    """Return an argument as signatures, and thoughts that copy from them, write it: `brightness: 0..100 percent`."""
    if schema.enum:
        return f"{name}: {' | '.join(schema.enum)}"
    if schema.type == "boolean":
        return f"{name}: true | false"
    return f"{name}: {schema.minimum:g}..{schema.maximum:g} {schema.unit}".rstrip()


def user_message(text: str, state: dict[str, dict[str, Value]], clock: str, words: SiteWords = NO_WORDS) -> Message:
    """Return the user's turn: fresh state and clock, then the request, so that what counts most is nearest the reply.

    Lines about devices and tools, and thoughts, begin with a blank: a word is then the same token wherever it is copied
    from or to, as tokenizers have a blank as a part of the word after it.

    Args:
        text: what the person said, in any capitals; it is spelled as usual, and markers in it are defused.
        state: property values by device.
        clock: local time as HH:MM.
        words: of the site, as the contract has them.
    """
    lines = [f" {name}:{text}" for name, text in facts_of(state)]
    return Message(
        "user", "\n".join(["State:", *lines, f"clock {clock}", REQUEST + defuse(usual_spelling(text, words))])
    )


def request_of(text: str) -> str:
    """Return what the person said in a user's turn."""
    return text.rsplit(f"\n{REQUEST}", 1)[-1]


def before_request(prompt: str) -> str:
    """Return what stands in a prompt before the last request."""
    return prompt[: prompt.rindex(f"\n{REQUEST}")]


def facts_of(state: dict[str, dict[str, Value]]) -> list[tuple[str, str]]:
    """Return each device's name and what stands after it and a colon."""
    return [(name, facts_text(values)) for name, values in state.items()]


def facts_text(values: dict[str, Value]) -> str:
    """Return what stands after a device's name and a colon, in the state and in thoughts that cite it."""
    return " " + (" ".join(f"{key}={json_value(value)}" for key, value in values.items()) or "unavailable")


def result_message(results: Sequence[dict[str, Value]]) -> Message:
    """Return the tool turn: one JSON object a line, in the order of the calls."""
    return Message("tool", "\n".join(defuse(compact_json(result)) for result in results))


def body_of(message: Message) -> str:
    """Return what a template puts between a turn's header and its end-of-turn token."""
    if message.role != "assistant":
        return message.text
    calls = "".join(
        f"{CALL}{compact_json({'name': call.name, 'arguments': call.arguments})}{END_CALL}" for call in message.calls
    )
    return f"{THINK} {message.thought}{END_THINK}{calls or message.text}"


def defuse(text: str) -> str:
    """Return text from outside with everything broken that could read as a marker, a special token or a heading."""
    for start in ("<|", "</", "<t", "<s>", "[INST", "[/INST", "[TOOL", "###"):
        text = text.replace(start, f"{start[0]} {start[1:]}")
    return text.replace("|>", "| >")


def compact_json(value: Any) -> str:
    """Return JSON without blanks, keys in the order given."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_value(value: Value) -> str:
    """Return a value as JSON, numbers with at most one decimal and no trailing zero."""
    if isinstance(value, float):
        value = round(value, 1)
        value = int(value) if value == int(value) else value
    return compact_json(value)


@dataclass(frozen=True)
class ToolCalls:
    """A reply that proposes calls. Each fits its tool's schema."""

    thought: str
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True)
class Answer:
    """A reply to the person."""

    thought: str
    text: str


@dataclass(frozen=True)
class Unusable:
    """A reply that is neither; `is_json` says whether at least its calls were valid JSON."""

    reason: str
    is_json: bool = True


Reply = ToolCalls | Answer | Unusable


def parse_reply(text: str, tools: Sequence[Tool]) -> Reply:
    """Return the decision in an assistant's reply; its end-of-turn token is already cut off."""
    if not text.startswith(THINK) or END_THINK not in text:
        return Unusable("no thought at the start")
    thought, rest = text.removeprefix(THINK).split(END_THINK, 1)
    thought = thought.removeprefix(" ")
    if any(marker in thought for marker in MARKERS):
        return Unusable("a marker inside the thought")
    if not rest.startswith(CALL):
        if any(marker in rest for marker in MARKERS):
            return Unusable("a marker inside the answer")
        return Answer(thought, rest) if rest.strip() else Unusable("neither a call nor an answer")
    calls = []
    while rest:
        if not rest.startswith(CALL) or END_CALL not in rest:
            return Unusable("text between or after the calls", is_json=False)
        body, rest = rest.removeprefix(CALL).split(END_CALL, 1)
        call = _parse_call(body)
        if isinstance(call, Unusable):
            return call
        if isinstance(problem := command_of(call, list(tools)), str):
            return Unusable(problem)
        calls.append(call)
    return ToolCalls(thought, tuple(calls))


def _parse_call(body: str) -> ToolCall | Unusable:
    try:
        value = json.loads(body)
    except ValueError as error:
        return Unusable(f"not JSON: {error}", is_json=False)
    if not isinstance(value, dict) or set(value) != {"name", "arguments"}:
        return Unusable("a call is an object with name and arguments")
    if not isinstance(value["name"], str) or not isinstance(value["arguments"], dict):
        return Unusable("name is a string and arguments an object")
    return ToolCall(value["name"], value["arguments"])
