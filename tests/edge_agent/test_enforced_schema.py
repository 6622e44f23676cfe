"""Schemas from elsewhere: enforced whole, or the feature that cannot be is named."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from llguidance.hf import from_tokenizer

from devices.errors import UsageError
from edge_agent.enforced_schema import enforced
from edge_agent.grammar import schema_grammar
from edge_agent.markers import CALL, END_CALL
from edge_agent.matching import TEXT_SLICES, Matcher, Vocabulary
from finetune.starter_model import train_tokenizer
from tests.tiny_base import TINY_VOCABULARY, tiny_texts
from tests.vocabularies import VOCABULARIES

BFCL = VOCABULARIES.parent / "bfcl"
FILES = ("simple_python", "multiple", "parallel", "irrelevance")
# BFCL's names of types, which are Python's. Source: gorilla, berkeley-function-call-leaderboard, type_mappings.py.
TYPES = {"dict": "object", "float": "number", "tuple": "array"}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    tokenizer = train_tokenizer(tiny_texts(), TINY_VOCABULARY)
    return Vocabulary(from_tokenizer(tokenizer, slices=TEXT_SLICES), len(tokenizer))


def json_schema(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a BFCL schema in JSON Schema's words."""
    schema = {key: value for key, value in plain.items() if key != "optional"}
    if schema.get("type") == "any":
        del schema["type"]
    elif "type" in schema:
        schema["type"] = TYPES.get(schema["type"], schema["type"])
    if "properties" in schema:
        schema["properties"] = {name: json_schema(one) for name, one in schema["properties"].items()}
    if "items" in schema:
        schema["items"] = json_schema(schema["items"])
    return schema


def bfcl_functions() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name in FILES:
        for line in (BFCL / f"BFCL_v4_{name}.json").read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            for function in case["function"]:
                yield case["id"], function["name"], json_schema(function["parameters"])


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


@pytest.mark.skipif(not BFCL.exists(), reason="no benchmark cases beside the checkout")
def test_every_schema_of_the_benchmark_compiles_and_holds(vocabulary: Vocabulary) -> None:
    draw, seen = random.Random(1), 0
    for case, name, schema in bfcl_functions():
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
