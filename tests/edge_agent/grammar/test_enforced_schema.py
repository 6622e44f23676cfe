"""Schemas from elsewhere: enforced whole, or the feature that cannot be is named."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from llguidance.hf import from_tokenizer

from devices.errors import UnavailableError, UsageError
from devices.site.tools import ToolCall
from edge_agent.evaluation.suites.bfcl import json_schema
from edge_agent.grammar.enforced_schema import enforced
from edge_agent.grammar.reply_grammar import schema_grammar
from edge_agent.grammar.token_mask import TEXT_SLICES, Matcher, Vocabulary
from edge_agent.wire.markers import CALL, END_CALL
from edge_agent.wire.messages import Message, body_of
from finetune.pretraining.starter_model import train_tokenizer
from tests.edge_agent.grammar.schema_cases import CASES
from tests.tiny_base import TINY_VOCABULARY, tiny_texts
from tests.vocabularies import published_folder

FILES = ("simple_python", "multiple", "parallel", "irrelevance")


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    tokenizer = train_tokenizer(tiny_texts(), TINY_VOCABULARY)
    return Vocabulary(from_tokenizer(tokenizer, slices=TEXT_SLICES), len(tokenizer))


def sample_call(vocabulary: Vocabulary, functions: dict[str, dict[str, Any]], draw: random.Random) -> dict[str, Any]:
    """Return one call made of random tokens that the grammar allows; ends are favoured, so that it comes to one."""
    matcher = Matcher(vocabulary, schema_grammar(functions))
    text: list[int] = []
    call, end_call = (vocabulary.tokenizer.tokenize_str(marker, parse_special=True)[0] for marker in (CALL, END_CALL))
    while end_call not in text:
        text += matcher.take_forced()
        if matcher.is_over or end_call in text:
            break
        allowed = [int(token) for token in matcher.allowed()]
        special = [token for token in allowed if vocabulary.tokenizer.is_special_token(token)]
        wanted = [token for token in special if token in (call, end_call)] or special
        ends = [token for token in allowed if vocabulary.tokenizer.decode_bytes([token])[:1] in b'"]},']
        choice = draw.choice(wanted or (ends if ends and draw.random() < 0.4 else allowed))
        matcher.accept(choice)
        text.append(choice)
    written = vocabulary.text_of(text).split(CALL, 1)[1].split(END_CALL)[0]
    made: dict[str, Any] = json.loads(written)
    return made


def can_be_called(vocabulary: Vocabulary, functions: dict[str, dict[str, Any]], call: ToolCall) -> bool:
    """Return whether the grammar lets a reply with this one call through, to the end of the turn."""
    matcher = Matcher(vocabulary, schema_grammar(functions))
    text = body_of(Message("assistant", "", "It is asked for.", (call,)))
    ids = vocabulary.tokenizer.tokenize_str(text, parse_special=True)
    try:
        return all(matcher.accept(token) for token in ids) and not matcher.accept(vocabulary.tokenizer.eos_token)
    except UnavailableError:
        return False


@pytest.mark.parametrize(("properties", "required", "right", "wrong"), CASES.values(), ids=CASES)
def test_what_fits_a_schema_can_be_called_and_nothing_else(
    vocabulary: Vocabulary,
    properties: dict[str, Any],
    required: list[str],
    right: dict[str, Any],
    wrong: dict[str, Any],
) -> None:
    schema = {"type": "object", "properties": properties, "required": required}
    jsonschema.validate(right, schema)
    functions = {"tool_1": enforced(schema, "tool_1")}
    assert can_be_called(vocabulary, functions, ToolCall("tool_1", right))
    assert not can_be_called(vocabulary, functions, ToolCall("tool_1", wrong))
    assert not can_be_called(vocabulary, functions, ToolCall("tool_2", right))
    jsonschema.validate(sample_call(vocabulary, functions, random.Random(5))["arguments"], schema)


def bfcl_functions(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name in FILES:
        for line in (folder / f"BFCL_v4_{name}.json").read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            for function in case["function"]:
                yield case["id"], function["name"], json_schema(function["parameters"])


def bfcl_folder() -> Path | None:
    """Return where BFCL's cases are: in the package bfcl-eval, or beside the vocabularies."""
    package = importlib.util.find_spec("bfcl_eval")
    places = [Path(place) / "data" for place in (package.submodule_search_locations or ())] if package else []
    return next((place for place in [*places, published_folder().parent / "bfcl"] if place.is_dir()), None)


def test_every_schema_of_bfcl_compiles_and_holds(vocabulary: Vocabulary) -> None:
    if not (folder := bfcl_folder()):
        pytest.skip("no BFCL: `pip install --no-deps bfcl-eval` brings it")
    draw, seen = random.Random(1), 0
    for case, name, schema in bfcl_functions(folder):
        ours = enforced(schema, f"{case}, {name}")
        schema_grammar({name: ours})
        if draw.random() < 0.3:
            call = sample_call(vocabulary, {name: ours}, draw)
            assert call["name"] == name
            jsonschema.validate(call["arguments"], schema)
        seen += 1
    assert seen > 1300


SCHEMAS: dict[str, dict[str, Any]] = {
    "ranges": {"type": "integer", "minimum": 3, "maximum": 17},
    "open ranges": {"type": "number", "exclusiveMinimum": 0, "maximum": 1.5},
    "lengths": {"type": "string", "minLength": 2, "maxLength": 4},
    "patterns": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
    "dates": {"type": "string", "format": "date"},
    "lists": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    "choices": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 2}, {"type": "null"}, {"enum": ["x"]}]},
    "nested": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {
        "b": {"type": "string", "enum": ["p", "q"]}}, "required": ["b"]}, "maxItems": 2}}, "required": ["a"]},
    "others": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 9}},
}  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_what_comes_out_validates(vocabulary: Vocabulary, schema: dict[str, Any]) -> None:
    whole = {"type": "object", "properties": {"x": schema, "y": {"type": "integer", "minimum": 0, "maximum": 5}},
             "required": ["x"]}  # fmt: skip
    ours, draw, optional = enforced(whole, "f"), random.Random(3), 0
    for _ in range(12):
        call = sample_call(vocabulary, {"f": ours}, draw)
        jsonschema.validate(call["arguments"], whole)
        assert call["arguments"].keys() <= {"x", "y"}
        optional += "y" in call["arguments"]
    assert optional > 0  # an optional argument may come


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "integer", "bitWidth": 32}, "f.x: the grammar cannot enforce 'bitWidth' of the type integer"),
        ({"type": "array", "uniqueItems": True}, "cannot enforce 'uniqueItems' of the type array"),
        ({"type": "string", "format": "colour"}, "cannot enforce the format 'colour'"),
        ({"type": "dict"}, "cannot enforce the type 'dict'"),
        ({"oneOf": []}, "cannot enforce 'oneOf' without a type"),
        ({"anyOf": [{"type": "string", "contentEncoding": "x"}]}, "f.x, choice 1: the grammar cannot enforce 'cont"),
    ],
)
def test_what_cannot_be_enforced_is_named(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        enforced({"type": "object", "properties": {"x": schema}}, "f")
