"""The page about training rows: its counts, and that text from rows stays text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import edgewright
from devices.site.site import load_site
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.messages import Message
from finetune.data.data_report import histogram, make_report, page_of
from finetune.data.generator import generate_rows
from finetune.data.rows import IGNORED, Row, encode, write_rows
from finetune.data.tool_variety import Variety
from tests.tiny_base import make_tiny_base

CHATML = load_template("chatml")


def test_counts_are_those_of_the_rows(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_tiny_base(tmp_path / "base"))
    rows = list(generate_rows(load_site("home"), 60, 1, Variety(shuffled=0.5)))
    rows.append(rows[0])
    report = make_report("rows", rows, CHATML, tokenizer)
    assert report.rows == 61 and report.varied == sum(row.is_varied for row in rows)
    assert sum(count for _, count in report.kinds) == sum(len(row.kinds) for row in rows)
    assert sum(count for _, count in histogram(report.tokens)) == 61
    labels = [label for row in rows for label in encode(row.messages, CHATML, tokenizer)[1]]
    assert (sum(report.tokens), sum(report.trained)) == (len(labels), sum(label != IGNORED for label in labels))
    copied = sum(message.role == "user" for message in rows[0].messages)
    assert report.to_dict()["copies"] >= copied and report.copies[0][1] >= 2


def test_a_row_s_text_cannot_become_markup(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_tiny_base(tmp_path / "base"))
    said = "<script>alert(1)</script>"
    page = page_of(make_report(said, [Row((), (Message("user", said), Message("assistant", said)))], CHATML, tokenizer))
    assert "<script" not in page and page.count("&lt;script&gt;") >= 3


def test_the_command_writes_the_page_and_counts_what_it_could_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "rows.jsonl", generate_rows(load_site("home"), 12, 1))
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"odd": 1}\n')
    command = ["data", "report", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "page.html")]
    assert edgewright.main(command) == 0
    assert "12 conversations, 1 rows could not be read" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert edgewright.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 12
