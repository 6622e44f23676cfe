"""Training on own conversations with a toolset, and the strict evaluation of what came of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devices.site.site import load_site
from edge_agent.evaluation.conversations.turns import read_turn_cases
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from edgewright import main
from tests.tiny_base import make_tiny_base
from tests.toolset import conversation, conversations_in, toolset_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    make_tiny_base(folder / "base")
    toolset_in(folder)
    conversations_in(folder, 24)
    return folder


def train(folder: Path, *changes: str) -> int:
    given = [
        f"base={folder / 'base'}", f"tools={folder / 'tools.yaml'}", f"data={folder / 'conversations.json'}",
        f"out={folder / 'run'}", "device=cpu", "quantization=none", "training.steps=2", "training.batch_rows=2",
    ]  # fmt: skip
    return main(["train", "support", *given, *changes])


def test_it_trains_on_a_json_array(folder: Path) -> None:
    assert train(folder) == 0
    run = folder / "run"
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    contract = contract_of(load_site(folder / "tools.yaml"), load_template("chatml"))
    cases = read_turn_cases(run / "held_out.jsonl", contract)
    assert len(read_turn_cases(folder / "conversations.json", contract)) == 48
    assert facts["data"]["rows"] + len(cases) // 2 == 24
    sample = json.loads((run / "sample.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert sample["messages"][0]["text"].startswith("You are the refund desk. Be brief.\nTools:\n- process_refund(")
    assert (run / "site.yaml").read_text(encoding="utf-8").startswith("schema: toolset/v1")


def test_its_replies_are_judged_before_and_after(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (folder / "run").exists():
        assert train(folder) == 0
    out = folder / "report"
    models = [str(folder / "base"), str(folder / "run")]
    one = folder / "one.jsonl"  # random weights end no reply
    one.write_text((folder / "run" / "held_out.jsonl").read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")
    given = ["--tools", str(folder / "tools.yaml"), "--cases", str(one)]
    assert main(["eval", *models, *given, "--out", str(out)]) == 0
    table = capsys.readouterr().out
    assert "base, free" in table and "tuned, grammar" in table and "good, by what is due:" in table
    report = json.loads((out / "turns.json").read_text(encoding="utf-8"))
    assert [one["label"] for one in report["models"]] == ["base", "tuned"]
    metrics = report["models"][1]["constrained"]["metrics"]
    assert metrics["no_invented_tool"]["count"] == metrics["no_invented_tool"]["total"] == report["replies"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": "x"}, "conversations.json:1: "),
        (conversation() | {"tools": []}, "conversations.json:1: calls process_refund, and declares none"),
    ],
)
def test_a_bad_row_ends_it_in_one_line(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], row: object, message: str
) -> None:
    data = tmp_path / "conversations.json"
    data.write_text(json.dumps([row]), encoding="utf-8")
    assert train(folder, f"data={data}", f"out={tmp_path / 'run'}") == 2
    assert message in capsys.readouterr().err
