"""Results of calls: joined to their calls by id, in Hermes' tags, in Anthropic's blocks and in ShareGPT's turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devices.site.tools import ToolCall
from edge_agent.wire.messages import Message
from edgewright import main
from finetune.data.formats.errors import Unreadable
from finetune.data.formats.schemas import make_tool
from finetune.data.formats.sources import WRITERS, read_row
from finetune.data.rows import Row

CITIES = {"a": "Rome", "b": "Oslo", "c": "Cairo"}
DEGREES = {"a": 21, "b": 2, "c": 35}


def hermes(*results: str, ids: bool = True) -> dict[str, Any]:
    """Return Hermes' conversation with calls a, b and c, and these results in one turn."""
    calls = [
        ({"id": name} if ids else {}) | {"name": "weather", "arguments": {"city": city}}
        for name, city in CITIES.items()
    ]
    said = "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)
    told = "\n".join(
        f"<tool_response>\n{json.dumps({'tool_call_id': name, 'content': DEGREES.get(name)})}\n</tool_response>"
        for name in results
    )
    turns = [("human", "Weather?"), ("gpt", said), ("tool", told), ("gpt", "Warm, cold, hot.")]
    return {"conversations": [{"from": role, "value": text} for role, text in turns]}


def sharegpt(*results: str) -> dict[str, Any]:
    """Return ShareGPT's conversation, with a turn for each call and each result."""
    calls = [
        {"from": "function_call", "value": json.dumps({"id": name, "name": "weather", "arguments": {"city": city}})}
        for name, city in CITIES.items()
    ]
    told = [{"from": "observation", "value": str(DEGREES.get(name)), "tool_call_id": name} for name in results]
    answer = {"from": "gpt", "value": "Warm, cold, hot."}
    return {"conversations": [{"from": "human", "value": "Weather?"}, *calls, *told, answer]}


def anthropic(*results: str) -> dict[str, Any]:
    """Return Anthropic's conversation."""
    said: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "Three towns.", "signature": "x"},
        {"type": "text", "text": "I look."},
    ]
    said += [
        {"type": "tool_use", "id": name, "name": "weather", "input": {"city": city}} for name, city in CITIES.items()
    ]
    told: list[dict[str, Any]] = [
        {"type": "tool_result", "tool_use_id": name, "content": [{"type": "text", "text": str(DEGREES.get(name))}]}
        for name in results
    ]
    return {
        "system": [{"type": "text", "text": "Be brief."}],
        "tools": [{"name": "weather", "description": "Degrees.", "input_schema": {"type": "object", "properties": {}}}],
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": said},
            {"role": "user", "content": told},
            {"role": "assistant", "content": "Warm, cold, hot."},
        ],
    }


@pytest.mark.parametrize("form", [hermes, sharegpt, anthropic])
def test_results_go_to_their_calls_in_whatever_order_they_came(form: Any) -> None:
    row, other = read_row(form("a", "b", "c")), read_row(form("c", "a", "b"))
    assert row == other
    results = next(message.text for message in row.messages if message.role == "tool").split("\n")
    assert [DEGREES[name] for name in "abc"] == [
        int(text) if text.isdigit() else json.loads(text)["content"] for text in results
    ]
    calls = next(message.calls for message in row.messages if message.calls)
    assert [call.arguments["city"] for call in calls] == ["Rome", "Oslo", "Cairo"]
    for name in ("sharegpt", "hermes", "openai"):
        assert read_row(json.loads(json.dumps(WRITERS[name](row)))) == row


@pytest.mark.parametrize("form", [hermes, sharegpt, anthropic])
@pytest.mark.parametrize(
    ("results", "reason"),
    [
        (["a", "b", "z"], "a result of 'z', and there is no such call"),
        (["a", "b", "b"], "the id 'b'"),
        (["a", "b"], "the call 'c' has no result"),
    ],
)
def test_an_id_that_no_call_has_is_said_with_its_row(
    form: Any, results: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_row(form(*results))
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    path.write_text(json.dumps(form("a", "b", "c")) + "\n" + json.dumps(form(*results)) + "\n", encoding="utf-8")
    assert main(["data", "convert", str(path), "--out", str(out)]) == 0
    error = capsys.readouterr().err
    assert f"{path}:2: " in error and reason in error and len(error.splitlines()) == 1


def test_without_ids_of_calls_results_in_tags_stay_in_their_order() -> None:
    row = read_row(hermes("c", "a", "b", ids=False))
    assert [json.loads(line)["content"] for line in row.messages[2].text.split("\n")] == [35, 21, 2]


def test_blocks_become_a_thought_calls_and_results() -> None:
    row = read_row(anthropic("a", "b", "c"))
    assert row.messages == (
        Message("system", "Be brief."),
        Message("user", "Weather?"),
        Message(
            "assistant",
            "",
            "Three towns.\nI look.",
            tuple(ToolCall("weather", {"city": city}) for city in CITIES.values()),
        ),
        Message("tool", "21\n2\n35"),
        Message("assistant", "Warm, cold, hot."),
    )
    assert row.tools == (make_tool("weather", {"type": "object", "properties": {}}, "Degrees."),)


def test_blocks_of_a_user_are_results_and_then_what_is_said() -> None:
    plain = anthropic("a", "b", "c")
    plain["messages"][2]["content"].append({"type": "text", "text": "And?"})
    assert [message.role for message in read_row(plain).messages] == [
        "system", "user", "assistant", "tool", "user", "assistant"
    ]  # fmt: skip
    plain["messages"][2]["content"].append({"type": "image", "source": {}})
    with pytest.raises(Unreadable, match="part that is no text"):
        read_row(plain)


def test_calls_in_messages_that_follow_each_other_keep_their_ids() -> None:
    calls = [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": name, "function": {"name": name, "arguments": "{}"}}],
        }
        for name in "ab"
    ]
    results = [{"role": "tool", "tool_call_id": name, "content": name.upper()} for name in "ba"]
    answer = {"role": "assistant", "content": "Done."}
    row = read_row({"messages": [{"role": "user", "content": "Go."}, *calls, *results, answer]})
    assert row.messages[1:3] == (
        Message("assistant", "", "", (ToolCall("a", {}), ToolCall("b", {}))), Message("tool", "A\nB")
    )  # fmt: skip


def test_results_that_are_fewer_than_calls_are_written_without_ids() -> None:
    calls = (ToolCall("a", {}), ToolCall("b", {}))
    turns = (
        Message("user", "Go."),
        Message("assistant", "", "", calls),
        Message("tool", "both"),
        Message("assistant", "Ok."),
    )
    written = WRITERS["openai"](Row((), turns))
    assert "tool_call_id" not in written["messages"][2]
    assert read_row(written).messages == turns
