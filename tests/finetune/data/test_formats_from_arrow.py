"""Rows that went through Parquet: every object has the keys of all others, with null in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from devices.site.tools import ToolCall
from edge_agent.wire.messages import Message
from edgewright import main
from finetune.data.formats.schemas import make_tool
from finetune.data.formats.sources import READERS, WRITERS, format_of, read_row, read_source
from finetune.data.rows import Row

INTEGER, TEXT = {"type": "integer"}, {"type": "string"}
MOVE = make_tool("move", {"type": "object", "properties": {"x": INTEGER, "y": INTEGER}, "required": ["x", "y"]})
NOTE = make_tool(
    "note",
    {"type": "object", "properties": {"text": TEXT | {"enum": ["a", "b"]}, "tags": {"type": "array", "items": TEXT}}},
)
STORE = make_tool(
    "store", {"type": "object", "properties": {"bin": INTEGER, "label": {"anyOf": [TEXT, {"type": "null"}]}}}
)
STOP = make_tool("stop", {"type": "object"})


def rows() -> list[Row]:
    """Return conversations with one tool each, and calls of it."""
    called = [
        (MOVE, ToolCall("move", {"x": 0, "y": 1})),
        (NOTE, ToolCall("note", {"text": "a", "tags": ["b"]})),
        (STORE, ToolCall("store", {"bin": 4, "label": None})),
        (STOP, ToolCall("stop", {})),
    ]
    ask, answer = Message("user", "Go."), Message("assistant", "Done.")
    return [Row((), (ask, Message("assistant", "", "", (call,)), answer), (tool,)) for tool, call in called]


def structured(row: Row) -> dict[str, Any]:
    """Return a row as OpenAI has it, with arguments that are objects and not text."""
    plain = WRITERS["openai"](row)
    for call in plain["messages"][1]["tool_calls"]:
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return plain


@pytest.mark.parametrize("form", [structured, Row.to_dict])
def test_a_row_through_parquet_is_the_same_again(form: Any, tmp_path: Path) -> None:
    plain = [form(row) for row in rows()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(plain), tmp_path / "rows.parquet")
    padded = pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert padded[0] != plain[0] and '"label": null' in json.dumps(padded[0])
    expected = rows()
    assert [row for _, _, row in read_source(str(tmp_path / "rows.parquet"))] == expected


def test_padded_types_of_xlam_are_left_out() -> None:
    parameters = {"x": {"type": "int", "description": None, "default": None}, "y": None}
    tools = [{"name": "move", "description": "Move.", "parameters": parameters}]
    row = read_row({"query": "Go.", "tools": tools, "answers": [{"name": "move", "arguments": {"x": 1, "y": None}}]})
    assert row.tools[0] == make_tool(
        "move", {"type": "object", "properties": {"x": INTEGER}, "required": ["x"]}, "Move."
    )
    assert row.messages[1].calls == (ToolCall("move", {"x": 1}),)


@pytest.mark.parametrize(
    ("schema", "is_kept"),
    [
        ({"type": ["string", "null"]}, True),
        ({"type": "string", "nullable": True}, True),
        ({"enum": ["a", None]}, True),
        ({"oneOf": [{"type": "null"}, {"type": "string"}]}, True),
        ({}, True),
        ({"type": "string"}, False),
        ({"type": "string", "nullable": None, "enum": ["a"]}, False),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, False),
    ],
)
def test_null_stays_where_the_schema_allows_it(schema: dict[str, Any], is_kept: bool) -> None:
    function = {"name": "store", "parameters": {"type": "object", "properties": {"label": schema}}}
    call = {"function": {"name": "store", "arguments": {"bin": None, "label": None}}}
    messages = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    row = read_row({"messages": messages, "tools": [{"type": "function", "function": function}]})
    assert row.messages[1].calls[0].arguments == ({"label": None} if is_kept else {})


def test_nulls_in_nested_arguments_and_of_undeclared_tools() -> None:
    point = {"type": "object", "properties": {"x": INTEGER, "label": {"type": ["string", "null"]}}}
    parameters = {
        "type": "object",
        "properties": {"points": {"type": "array", "items": point}, "free": {"type": "object"}},
    }
    arguments = {"points": [{"x": 1, "y": None, "label": None}], "free": {"any": None}}
    calls = [{"name": name, "arguments": arguments} for name in ("draw", "unknown")]
    row = read_row({"query": "Go.", "tools": [{"name": "draw", "parameters": parameters}], "answers": calls})
    assert row.messages[1].calls[0].arguments == {"points": [{"x": 1, "label": None}], "free": {"any": None}}
    assert row.messages[1].calls[1].arguments == arguments


def test_null_in_every_other_place_is_nothing() -> None:
    turns: list[dict[str, Any]] = [
        {"from": "human", "value": "Go.", "role": None, "content": None, "loss": None, "tool_call_id": None},
        {"from": None, "value": None, "role": "assistant", "content": "Done.", "loss": None, "tool_call_id": None},
    ]
    plain = {"conversations": turns, "messages": None, "kinds": None, "tools": None, "system": None}
    assert format_of(plain) == "sharegpt" and format_of({"conversations": None, "messages": []}) == "openai"
    assert read_row(plain).messages == (Message("user", "Go."), Message("assistant", "Done."))
    call = {"id": "a", "type": "function", "function": {"name": "stop", "arguments": None}}
    padded = {"role": "assistant", "content": None, "tool_calls": [call], "function_call": None, "weight": None}
    messages = [{"role": "user", "content": "Go.", "tool_calls": None}, padded]
    assert read_row({"messages": messages}).messages[1].calls == (ToolCall("stop", {}),)
    assert set(READERS) >= {"edgewright", "openai"}


def test_a_file_that_is_no_parquet_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    assert main(["data", "convert", str(path), "--out", str(tmp_path / "out.jsonl")]) == 2
    assert f"cannot read the conversations {path}" in capsys.readouterr().err
