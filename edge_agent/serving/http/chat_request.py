"""A request of OpenAI's chat completions as a prompt and a grammar. Nothing is carried out here.

Unknown parameters are refused by name. Replies are greedy: what would change the sampling is accepted, since clients
send it without being asked, and the reply's `edgewright.notes` say that it made no difference.

Source: OpenAI API reference, "Create chat completion".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from devices.errors import UsageError
from devices.site.functions import CALL, FUNCTION_NAME, Function
from devices.site.tools import Tool, ToolCall
from devices.yaml_file import first_problem
from edge_agent.engine.engine import Limits, Request
from edge_agent.grammar.enforced_schema import enforced
from edge_agent.grammar.reply_grammar import MAX_CALLS, ReplyForm, reply_grammar
from edge_agent.wire.chat_template import ChatTemplate
from edge_agent.wire.function_text import with_lines
from edge_agent.wire.messages import Message, defuse

REPLY_TOKENS, MOST_REPLY_TOKENS = 240, 1024
TIMEOUT_S = 120.0
MOST_TOOLS = 64
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "repeat_penalty")


class BadRequest(UsageError):
    """What a client sent does not fit; `param` names where."""

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.param = param


class _Open(BaseModel):
    """A part of a request in which other keys than those we read do no harm."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Called(_Open):
    name: str
    arguments: str = "{}"


class _ToolCall(_Open):
    id: str
    function: _Called


class _Part(_Open):
    type: str
    text: str = ""


class _Message(_Open):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str = ""
    reasoning_content: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            if strange := [part.type for part in self.content if part.type not in {"text", "input_text"}]:
                raise BadRequest(f"content of the type {strange[0]!r}: this model reads text only", "messages")
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class _FunctionBody(_Open):
    name: str = Field(pattern=FUNCTION_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _ToolBody(_Open):
    type: Literal["function"]
    function: _FunctionBody


class _StreamOptions(_Open):
    include_usage: bool | None = None


class ChatBody(BaseModel):
    """The body of a request, as OpenAI names its keys; null is as if a key were not there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    messages: list[_Message] = Field(min_length=1, max_length=256)
    tools: list[_ToolBody] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: Literal["auto", "none", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: Literal[1] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None
    store: Literal[False] | None = None
    logprobs: Literal[False] | None = None
    session: str | None = None  # ours, of NAME:agent

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts before which a reply ends."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(one for one in given if one)

    @property
    def notes(self) -> list[str]:
        """What was accepted and made no difference."""
        given = [name for name in SAMPLING if getattr(self, name) is not None]
        return [f"{', '.join(given)}: replies are greedy, so this made no difference"] if given else []


@dataclass(frozen=True)
class ChatRequest:
    """What the engine is asked, and by which tools its reply is read."""

    request: Request
    tools: tuple[Tool, ...]
    stops: tuple[str, ...]
    notes: tuple[str, ...]


def read_body(plain: Any) -> ChatBody:
    """Return a request's body. Raises BadRequest naming the key that is wrong or unknown."""
    if not isinstance(plain, dict):
        raise BadRequest("the body is a JSON object with model and messages")
    try:
        return ChatBody.model_validate(plain)
    except ValidationError as error:
        location, message, hint = first_problem(error, ChatBody)
        where = ".".join(map(str, location))
        raise BadRequest(f"{where}: {message}{f'; {hint}' if hint else ''}", where) from error


def chat_request(body: ChatBody, template: ChatTemplate) -> ChatRequest:
    """Return what the engine is asked for a body.

    Raises:
        BadRequest: a message, a tool or a format that cannot be.
    """
    tools = _tools_of(body.tools or ())
    choice, form = _form_of(body, tools)
    prompt = template.render(_messages_of(body.messages, tools), add_generation_prompt=True)
    try:
        grammar = reply_grammar(choice, form)
    except UsageError as error:
        raise BadRequest(str(error), "tools") from error
    wanted = body.max_completion_tokens or body.max_tokens or REPLY_TOKENS
    limits = Limits(min(wanted, MOST_REPLY_TOKENS), TIMEOUT_S)
    return ChatRequest(Request(prompt, grammar, limits), tools, body.stops, tuple(body.notes))


def _tools_of(given: Sequence[_ToolBody]) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for number, one in enumerate(given):
        parameters = one.function.parameters or {"type": "object", "properties": {}}
        try:
            made = Function(description=one.function.description or "", parameters=parameters)
        except ValidationError as error:
            raise BadRequest(
                f"tool {one.function.name}: {first_problem(error, Function)[1]}", f"tools.{number}"
            ) from error
        if any(tool.name == one.function.name for tool in tools):
            raise BadRequest(f"two tools are called {one.function.name}", f"tools.{number}")
        tools.append(Tool(one.function.name, CALL, (), {}, function=made))
    return tuple(tools)


def _form_of(body: ChatBody, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], ReplyForm]:
    """Return the tools that may be called, and the form of the reply."""
    most = 1 if body.parallel_tool_calls is False else MAX_CALLS
    answer, choice = _answer_schema(body.response_format), body.tool_choice
    if choice in (None, "auto"):
        return tools, ReplyForm(most_calls=most, answer_schema=answer)
    if choice == "none":
        return (), ReplyForm(answer_schema=answer)
    if choice == "required":
        if not tools:
            raise BadRequest("tool_choice is required, and there are no tools", "tool_choice")
        return tools, ReplyForm(True, most, answer)
    name = choice.get("function", {}).get("name") if isinstance(choice, Mapping) else None
    named = tuple(tool for tool in tools if tool.name == name)
    if not named:
        raise BadRequest(f"tool_choice names {name!r}, which is none of the tools", "tool_choice")
    return named, ReplyForm(True, 1, answer)


def _answer_schema(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    kind = given.get("type") if given else None
    if kind in (None, "text"):
        return None
    assert given is not None
    if kind == "json_object":
        return {"type": "object"}
    schema = given.get("json_schema", {}).get("schema") if isinstance(given.get("json_schema"), dict) else None
    if kind != "json_schema" or not isinstance(schema, dict):
        raise BadRequest("response_format is text, json_object, or json_schema with a schema", "response_format")
    try:
        return enforced(schema, "response_format")
    except UsageError as error:
        raise BadRequest(str(error), "response_format") from error


def _messages_of(given: Sequence[_Message], tools: Sequence[Tool]) -> list[Message]:
    """Return the turns as the model knows them: one system text with the tools, results joined by their ids."""
    system = "\n\n".join(one.text for one in given if one.role in {"system", "developer"})
    text = with_lines(defuse(system), [tool.openai() for tool in tools])
    messages = [Message("system", text)] if text else []
    turns = [one for one in given if one.role not in {"system", "developer"}]
    if not turns or turns[-1].role == "assistant":
        raise BadRequest("the last message is of a user or a tool", "messages")
    wanted: list[str] = []  # ids of calls whose results must come
    results: dict[str, str] = {}
    for number, one in enumerate(turns):
        if one.role == "tool":
            if one.tool_call_id not in wanted or one.tool_call_id in results:
                raise BadRequest(f"the result {one.tool_call_id!r} is of no call before it", f"messages.{number}")
            results[one.tool_call_id] = defuse(one.text)
            if len(results) == len(wanted):
                messages.append(Message("tool", "\n".join(results[id_] for id_ in wanted)))
                wanted, results = [], {}
            continue
        if wanted:
            raise BadRequest(f"the call {wanted[0]!r} has no result", f"messages.{number}")
        messages.append(Message("user", defuse(one.text)) if one.role == "user" else _assistant(one, number))
        wanted = [call.id for call in one.tool_calls or ()]
    if wanted:
        raise BadRequest(f"the call {next(id_ for id_ in wanted if id_ not in results)!r} has no result", "messages")
    return messages


def _assistant(one: _Message, number: int) -> Message:
    calls = []
    for call in one.tool_calls or ():
        try:
            arguments = json.loads(call.function.arguments or "{}")
        except ValueError as error:
            raise BadRequest(f"arguments of the call {call.id!r} are not JSON", f"messages.{number}") from error
        if not isinstance(arguments, dict):
            raise BadRequest(f"arguments of the call {call.id!r} are no object", f"messages.{number}")
        calls.append(ToolCall(call.function.name, arguments))
    thought = defuse(one.reasoning_content or "").replace("\n", " ")
    return Message("assistant", defuse(one.text), thought, tuple(calls))
