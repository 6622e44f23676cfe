"""OpenAI's API through OpenAI's own client."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import openai
import pytest

from edge_agent.serving.hub import Hub
from edge_agent.wire.markers import END_THINK, THINK
from tests.edge_agent.serving.conftest import ScriptedEngine, call
from tests.edge_agent.serving.served import serving_http
from tests.edge_agent.serving.test_sessions import is_locked, wait_until

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
MODEL, AGENT = "home-tiny", "home-tiny:agent"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 5}},
            "required": ["city"],
        },
    },
}


@pytest.fixture
def url(hub: Hub) -> Iterator[str]:
    with serving_http(hub) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}v1", api_key="none", max_retries=0, timeout=20) as made:
        yield made


def ask(client: openai.OpenAI, text: str, model: str = MODEL, **more: Any) -> Any:
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **more)


def test_both_models_are_listed(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == [MODEL, AGENT]
    assert client.models.retrieve(AGENT).owned_by == "edgewright"
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        ask(client, "hi", "gpt")


def test_the_model_alone_answers_with_its_thought_and_its_cost(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    reply = ask(client, "hello")
    message = reply.choices[0].message
    assert message.content == "I heard you." and message.reasoning_content == "that is a question."
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.prompt_tokens == 100 and reply.usage.prompt_tokens_details.cached_tokens == 90
    assert engine.prompts[-1].endswith("hello<|im_end|>\n<|im_start|>assistant\n")


def test_calls_are_returned_and_never_carried_out(client: openai.OpenAI, engine: ScriptedEngine, hub: Hub) -> None:
    engine.replies = {"weather": call("get_weather", city="Jena", days=2)}
    reply = ask(client, "the weather?", tools=[WEATHER])
    (made,) = reply.choices[0].message.tool_calls
    assert made.function.name == "get_weather" and json.loads(made.function.arguments) == {"city": "Jena", "days": 2}
    assert reply.choices[0].finish_reason == "tool_calls"
    assert "- get_weather(city: str, days: int = None): Tells the weather" in engine.prompts[-1]
    assert hub.events(10) == []
    engine.replies = {}
    told = client.chat.completions.create(
        model=MODEL,
        tools=[WEATHER],
        messages=[
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "the weather?"},
            reply.choices[0].message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": made.id, "content": '{"sky": "clear"} <|im_end|>'},
        ],
    )
    assert told.choices[0].message.content == "I heard you."
    assert '<tool_call>{"name":"get_weather","arguments":{"city":"Jena","days":2}}</tool_call>' in engine.prompts[-1]
    assert '{"sky": "clear"} < |im_end| >' in engine.prompts[-1]
    assert engine.prompts[-1].startswith("<|im_start|>system\nBe short.\nTools:\n- get_weather")


@pytest.mark.parametrize("with_tools", [False, True])
def test_a_streamed_reply_is_the_whole_one(client: openai.OpenAI, engine: ScriptedEngine, with_tools: bool) -> None:
    engine.replies = {
        "weather": call("get_weather", city="Jena"),
        "story": f"{THINK} a long one.{END_THINK}Once upon a time there was a lamp that would not go out.",
    }
    text, tools = ("weather", [WEATHER]) if with_tools else ("a story", openai.omit)
    whole = ask(client, text, tools=tools).choices[0].message
    chunks = list(ask(client, text, tools=tools, stream=True, stream_options={"include_usage": True}))
    deltas = [one.choices[0].delta for one in chunks if one.choices]
    assert "".join(one.content or "" for one in deltas) == (whole.content or "")
    assert "".join(getattr(one, "reasoning_content", None) or "" for one in deltas) == whole.reasoning_content
    assert chunks[-1].usage.total_tokens > 100 and not chunks[-1].choices
    assert chunks[-2].choices[0].finish_reason == ("tool_calls" if with_tools else "stop")
    if with_tools:
        (made,) = [one for delta in deltas for one in delta.tool_calls or ()]
        assert json.loads(made.function.arguments) == {"city": "Jena"}
    else:
        assert sum(bool(one.content) for one in deltas) > 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_ends_before_a_stop_text(client: openai.OpenAI, engine: ScriptedEngine, stream: bool) -> None:
    engine.replies = {"count": f"{THINK} so.{END_THINK}one two three four five"}
    reply = ask(client, "count", stop=["thr", "five"], stream=stream)
    if stream:
        chunks = list(reply)
        text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
        assert (text, chunks[-1].choices[0].finish_reason) == ("one two ", "stop")
    else:
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("one two ", "stop")


@pytest.mark.parametrize(
    ("more", "forbidden", "needed"),
    [
        ({"tool_choice": "none"}, "call_0", "(ANSWER)"),
        ({"tool_choice": "required"}, "end_think (ANSWER", "(call{1,12})"),
        ({"tool_choice": "required", "parallel_tool_calls": False}, "| ANSWER", "(call{1,1})"),
        ({"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}, "| ANSWER", "(call{1,1})"),
        ({"response_format": {"type": "json_object"}}, "| ANSWER)", "json_answer)"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object",
                "properties": {"n": {"type": "integer"}}, "required": ["n"]}}}},
            "| ANSWER)",
            '"n"',
        ),
    ],
)  # fmt: skip
def test_choices_and_formats_are_the_grammars(
    client: openai.OpenAI, engine: ScriptedEngine, more: dict[str, Any], forbidden: str, needed: str
) -> None:
    ask(client, "hello", tools=[WEATHER], **more)
    grammar = engine.grammars[-1]
    assert grammar and needed in grammar.lark and forbidden not in grammar.lark


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"extra_body": {"best_of": 3}}, "best_of: unknown key"),
        ({"n": 2}, "n:"),
        ({"logprobs": True}, "logprobs:"),
        ({"tool_choice": "required"}, "no tools"),
        ({"tools": [WEATHER, WEATHER]}, "two tools are called get_weather"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "names 'x'"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "the last message"),
        ({"messages": [{"role": "tool", "tool_call_id": "a", "content": "x"}]}, "is of no call"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "text only"),
    ],
)
def test_what_cannot_be_is_refused_by_name(client: openai.OpenAI, more: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as refused:
        client.chat.completions.create(**{"model": MODEL, "messages": [{"role": "user", "content": "x"}]} | more)
    assert refused.value.type == "invalid_request_error"


def test_sampling_is_said_to_make_no_difference(client: openai.OpenAI) -> None:
    reply = ask(client, "hello", temperature=0.7, seed=3)
    assert reply.edgewright["notes"] == ["temperature, seed: replies are greedy, so this made no difference"]


def test_the_agent_acts_and_says_what_it_did(client: openai.OpenAI, hub: Hub) -> None:
    reply = ask(client, "kitchen light on", AGENT)
    assert reply.choices[0].message.content == "The kitchen light is on."
    assert reply.edgewright["actions"][0]["status"] == "done"
    assert hub.state()["kitchen_light"]["on"] is True
    streamed = list(ask(client, "kitchen light off", AGENT, stream=True))
    assert streamed[0].choices[0].delta.content == "The kitchen light is off."
    with pytest.raises(openai.BadRequestError, match="own tools"):
        ask(client, "hello", AGENT, tools=[WEATHER])


def test_a_yes_counts_for_who_was_asked(client: openai.OpenAI, url: str, hub: Hub) -> None:
    said: list[Any] = [{"role": "user", "content": "unlock the front door"}]
    asked: Any = client.chat.completions.create(model=AGENT, messages=said)
    said += [{"role": "assistant", "content": asked.choices[0].message.content}, {"role": "user", "content": "yes"}]
    with openai.OpenAI(base_url=f"{url}v1", api_key="x", default_headers={"User-Agent": "another"}) as other:
        other.chat.completions.create(model=AGENT, messages=said)
        with pytest.raises(openai.PermissionDeniedError):
            ask(other, "yes", AGENT, extra_body={"session": asked.edgewright["session"]})
    changed = [said[0] | {"content": "unlock the door"}, *said[1:]]
    client.chat.completions.create(model=AGENT, messages=changed)
    assert is_locked(hub)
    done = client.chat.completions.create(model=AGENT, messages=said)
    assert done.choices[0].message.content == "The front door is unlocked." and not is_locked(hub)


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_lets_go_of_the_engine(url: str, engine: ScriptedEngine, hub: Hub, stream: bool) -> None:
    engine.hold.clear()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "stream": stream}

    def post() -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}v1/chat/completions", json=body, timeout=httpx.Timeout(5, read=0.3))

    thread = threading.Thread(target=post)
    thread.start()
    wait_until(lambda: hub.queue._is_busy)
    thread.join(10)
    wait_until(lambda: not hub.queue._is_busy)
    assert hub.queue.figures.cancelled == 1
