"""Types of parameters as xLAM writes them: as JSON Schema, and counted where it has no such type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_agent.wire.function_text import annotation, signature
from edgewright import main
from finetune.data.formats.annotations import loose_types
from finetune.data.formats.schemas import parse_signature, read_tools
from finetune.data.formats.sources import WRITERS, read_row

STRING, NULL = {"type": "string"}, {"type": "null"}


def xlam(**parameters: dict[str, Any]) -> dict[str, Any]:
    tools = [{"name": "find", "description": "Find.", "parameters": parameters}]
    return {"query": "?", "tools": json.dumps(tools), "answers": '[{"name": "find", "arguments": {}}]'}


def schema_of(**parameter: Any) -> tuple[dict[str, Any], bool]:
    """Return the schema of a parameter, and whether it is required."""
    parameters = read_row(xlam(x=parameter)).tools[0]["function"]["parameters"]
    return parameters["properties"]["x"], "x" in parameters["required"]


@pytest.mark.parametrize(
    ("parameter", "is_required"),
    [
        ({"type": "str"}, True),
        ({"type": "str", "default": "a"}, False),
        ({"type": "str", "default": ""}, False),
        ({"type": "str, optional"}, False),
        ({"type": "Optional[str]"}, False),
        ({"type": "Optional[Any]"}, False),
        ({"type": "Union[str, None]"}, False),
        ({"type": "str | None"}, False),
        ({"type": "Dict[str, int], optional"}, False),
        ({"type": "Dict[str, int]"}, True),
        ({"type": "List[Optional[str]]"}, True),
        ({"type": "Any"}, True),
        ({}, True),
    ],
)
def test_what_has_a_default_or_may_be_none_is_not_required(parameter: dict[str, Any], is_required: bool) -> None:
    assert schema_of(**parameter)[1] == is_required


@pytest.mark.parametrize(
    ("written", "schema", "loose"),
    [
        ("np.ndarray", {"type": "array"}, True),
        ("Union[int, str]", {"anyOf": [{"type": "integer"}, STRING]}, False),
        ("Union[str, List[str]]", {"anyOf": [STRING, {"type": "array", "items": STRING}]}, False),
        ("Optional[str]", {"anyOf": [STRING, NULL]}, False),
        ("int | str | None", {"anyOf": [{"type": "integer"}, STRING, NULL]}, False),
        ("Union[str, Any]", {}, False),
        ("Callable[[float], float]", {}, True),
        ("Tuple[int, str]", {"type": "array"}, True),
        ("Set[int]", {"type": "array", "items": {"type": "integer"}}, True),
        ("List[Tuple[int, int]]", {"type": "array", "items": {"type": "array"}}, True),
        ("Dict[str, float]", {"type": "object", "additionalProperties": {"type": "number"}}, False),
        ("Dict[str, Any]", {"type": "object"}, False),
        ("typing.List[int]", {"type": "array", "items": {"type": "integer"}}, False),
        ("Any", {}, False),
        ("datetime.date", {}, True),
        ("list of towns", {}, True),
    ],
)
def test_every_type_is_a_schema(written: str, schema: dict[str, Any], loose: bool) -> None:
    found, _ = schema_of(type=written)
    assert found == schema
    assert bool(loose_types(found)) == loose
    row = read_row(xlam(x={"type": written, "description": "d"}))
    again = read_row(WRITERS["xlam"](row))
    assert again == row and loose_types(again.tools) == loose_types(row.tools)


@pytest.mark.parametrize(
    "text",
    [
        "a(b: str | None, c: int | str = None)",
        "a(b: dict[str, int], c: list[int | None], d: np.ndarray, e: Callable[[int], int] = None)",
        "Rain Radar(town: str)",
        "weather.get-rain()",
    ],
)
def test_a_signature_with_such_types_and_names_is_the_same_again(text: str) -> None:
    assert signature(parse_signature(text)) == text


def test_lists_of_types_are_written_as_unions() -> None:
    assert annotation({"type": ["string", "null"]}) == "str | None"
    (tool,) = read_tools(
        [{"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": ["integer", "null"]}}}}]
    )
    assert signature(tool) == "f(x: int | None = None)"


def test_convert_counts_the_types_that_json_schema_has_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        xlam(x={"type": "np.ndarray"}, y={"type": "Callable"}),
        xlam(x={"type": "np.ndarray"}),
        xlam(x={"type": "int"}),
    ]
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert main(["data", "convert", str(path), "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    counts = json.loads(printed.out)
    assert counts["written"] == 3 and counts["rejected"] == 0
    assert counts["loose_types"] == {"np.ndarray": 2, "Callable": 1}
    assert "3 types that JSON Schema has not became wider ones: np.ndarray 2, Callable 1" in printed.err
