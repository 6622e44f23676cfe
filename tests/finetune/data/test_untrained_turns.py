"""Turns that a data set marks as not to be learned: context, in every format and in the labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from devices.errors import UsageError
from edge_agent.wire.chat_template import END_OF_TURN, load_template
from edge_agent.wire.messages import Message
from edgewright import main
from finetune.data.encoded_rows import RowEncoder, spans
from finetune.data.formats.errors import Unreadable, Unwritable
from finetune.data.formats.sources import WRITERS, read_row
from finetune.data.rows import Row, read_rows, write_rows
from tests.tiny_base import make_tiny_base

CORRECTED = Row(
    (),
    (
        Message("user", "Capital of Australia?"),
        Message("assistant", "Sydney.", "The largest city.", is_trained=False),
        Message("user", "No."),
        Message("assistant", "Canberra.", "It is Canberra."),
    ),
)


def openai(**mark: Any) -> dict[str, Any]:
    """Return the conversation as OpenAI has it, the wrong reply with a mark."""
    wrong = {"role": "assistant", "content": "Sydney.", "reasoning_content": "The largest city."} | mark
    right = {"role": "assistant", "content": "Canberra.", "reasoning_content": "It is Canberra.", "weight": 1}
    asked, denied = ({"role": "user", "content": text, "weight": 0} for text in ("Capital of Australia?", "No."))
    return {"messages": [asked, wrong, denied, right]}


def sharegpt(**mark: Any) -> dict[str, Any]:
    """Return the conversation as ShareGPT has it, the wrong reply with a mark."""
    wrong = {"from": "gpt", "value": "<think>The largest city.</think>Sydney."} | mark
    right = {"from": "gpt", "value": "<think>It is Canberra.</think>Canberra.", "loss": True, "train": None}
    return {
        "conversations": [
            {"from": "human", "value": "Capital of Australia?"}, wrong, {"from": "human", "value": "No."}, right
        ]
    }  # fmt: skip


@pytest.mark.parametrize("form", [openai, sharegpt])
@pytest.mark.parametrize(
    "mark", [{"weight": 0}, {"weight": 0.0}, *({key: False} for key in ("loss", "train", "training", "train_on_turn"))]
)
def test_a_marked_reply_is_not_trained(form: Any, mark: dict[str, Any]) -> None:
    assert read_row(form(**mark)) == CORRECTED
    unmarked = read_row(form(**dict.fromkeys(mark, 1)))
    assert all(message.is_trained for message in unmarked.messages)


def test_a_marked_turn_of_calls_is_not_trained_and_not_joined_with_the_next() -> None:
    calls = [
        {"from": "tool_call", "value": '{"name": "rain", "arguments": {}}', "loss": loss} for loss in (False, True)
    ]
    row = read_row({"conversations": [{"from": "human", "value": "?"}, *calls, {"from": "observation", "value": "no"}]})
    assert [message.is_trained for message in row.messages] == [True, False, True, True]
    structured = {"role": "assistant", "tool_calls": [{"function": {"name": "rain", "arguments": "{}"}}], "weight": 0}
    said = {"role": "assistant", "content": "No."}
    row = read_row(
        {"messages": [{"role": "user", "content": "?"}, structured, {"role": "tool", "content": "no"}, said]}
    )
    assert [message.is_trained for message in row.messages] == [True, False, True, True]


@pytest.mark.parametrize("name", ["edgewright", "sharegpt", "sharegpt-text", "hermes", "openai", "trl"])
def test_the_mark_is_the_same_again_from_every_format(name: str, tmp_path: Path) -> None:
    assert read_row(json.loads(json.dumps(WRITERS[name](CORRECTED)))) == CORRECTED
    write_rows(tmp_path / "rows.jsonl", [CORRECTED])
    assert list(read_rows(tmp_path / "rows.jsonl")) == [CORRECTED]


def test_formats_without_marks_refuse_the_row() -> None:
    with pytest.raises(Unwritable, match="no mark"):
        WRITERS["alpaca"](CORRECTED)
    call = read_row({"query": "?", "tools": "[]", "answers": '[{"name": "rain"}]'}).messages
    untrained = Message("assistant", "", "", call[1].calls, is_trained=False)
    with pytest.raises(Unwritable, match="no mark"):
        WRITERS["xlam"](Row((), (call[0], untrained)))


@pytest.mark.parametrize(
    ("plain", "reason"),
    [
        (openai(weight=0.5), "weight is 0.5"),
        (sharegpt(loss="no"), "loss is 'no'"),
        (sharegpt(train_detail=[{"begin_offset": 0, "end_offset": 3, "train": False}]), "parts of a turn"),
        ({"messages": openai(weight=0)["messages"][:2]}, "all replies in it are marked"),
        (CORRECTED.to_dict() | {"messages": [{"role": "assistant", "text": "a", "trained": "no"}]}, "true or false"),
    ],
)
def test_a_mark_that_says_something_else_is_rejected(plain: Any, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_row(plain)


@pytest.mark.parametrize("template", sorted(END_OF_TURN))
def test_only_the_correction_is_trained_and_the_text_is_the_same(template: str) -> None:
    segments = load_template(template).segments(CORRECTED.messages)
    trained = [segment.text for segment in segments if segment.is_trained]
    assert len(trained) == 1 and trained[0].endswith("Canberra." + END_OF_TURN[template])
    plain = [Message(one.role, one.text, one.thought, one.calls) for one in CORRECTED.messages]
    assert "".join(one.text for one in segments) == "".join(one.text for one in load_template(template).segments(plain))


def test_labels_hide_the_marked_reply(tmp_path: Path) -> None:
    encoder = RowEncoder(load_template("chatml"), AutoTokenizer.from_pretrained(make_tiny_base(tmp_path)), 4096)
    encoded = encoder.encode("rows:1", CORRECTED.messages)
    assert encoded is not None
    trained = [text for text, is_trained in spans(*encoded, encoder.tokenizer) if is_trained]
    assert trained == ["<think> It is Canberra.</think>Canberra.<|im_end|>"]
    with pytest.raises(UsageError, match="rows:1: nothing is trained: the row has no assistant turn that is to be"):
        encoder.encode("rows:1", CORRECTED.messages[:2])


def test_show_shows_it_as_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(openai(weight=0)), encoding="utf-8")
    assert main(["data", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("[trained]") == 1 and "[trained]<think> It is Canberra." in shown and "Sydney." in shown
