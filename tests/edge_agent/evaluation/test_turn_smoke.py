"""The self-test of a toolset's bundle: the same calls as recorded, and none that does something new."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devices.errors import UnavailableError
from devices.site.site import load_site
from devices.site.tools import ToolCall
from edge_agent.bundle import SMOKE_RECORD, BundleTampered, open_bundle
from edge_agent.evaluation.conversations.turn_smoke import TurnSmoke, read_turn_smoke
from edge_agent.evaluation.conversations.turns import Conversation, TurnCase, cases_of
from edge_agent.evaluation.selftest import NOTHING_TESTED, selftest_for
from edge_agent.evaluation.smoke import SelfTest
from edge_agent.wire.messages import Message, body_of
from tests.edge_agent.evaluation.test_turns import done
from tests.tiny_bundle import make_tiny_bundle, rewrite_manifest
from tests.toolset import toolset_in

PAY = ToolCall("process_refund", {"transaction_id": "TXN1", "amount": 5})
FIND = ToolCall("find_transaction", {"transaction_id": "TXN1"})


def said(*calls: ToolCall, text: str = "") -> str:
    return body_of(Message("assistant", text, "t", calls))


@pytest.fixture
def cases(tmp_path: Path) -> list[TurnCase]:
    site = load_site(toolset_in(tmp_path))
    schemas = {name: function.parameters for name, function in site.functions.items()}
    turns = [
        (Message("system", "You are."), Message("user", f"pay {number}"), Message("assistant", "", "t", (PAY,)))
        for number in range(20)
    ]
    return [
        case
        for number, messages in enumerate(turns)
        for case in cases_of(Conversation(f"c{number}", messages, schemas))
    ]


def compared(cases: list[TurnCase], tmp_path: Path, recorded: str, *others: str) -> SelfTest:
    functions = load_site(tmp_path / "tools.yaml").functions
    smoke = TurnSmoke(tuple(cases), (recorded,) * len(cases))
    replies = [*others, *[recorded] * (len(cases) - len(others))]
    return smoke.compare([done(text) for text in replies], functions)


def test_calls_are_compared_and_words_only_counted(cases: list[TurnCase], tmp_path: Path) -> None:
    answer = said(text="Yes.")
    assert compared(cases, tmp_path, answer, said(text="No.")).other_words == 1
    assert compared(cases, tmp_path, said(PAY)).is_passed
    one, two = (compared(cases, tmp_path, said(PAY), *[answer] * count) for count in (1, 2))
    assert one.is_passed and not two.is_passed  # of 20 cases one may differ
    assert [found.ask for found in two.differing] == ["pay 0", "pay 1"]


def test_a_new_call_is_a_wrong_move_unless_it_only_asks(cases: list[TurnCase], tmp_path: Path) -> None:
    answer = said(text="Yes.")
    assert not compared(cases, tmp_path, answer, said(PAY)).is_passed
    assert compared(cases, tmp_path, answer, said(FIND)).is_passed
    more = ToolCall("process_refund", {"transaction_id": "TXN1", "amount": 50})
    assert compared(cases, tmp_path, said(PAY), said(more)).differing[0].is_wrong_move


def test_a_bundle_keeps_cases_and_record(cases: list[TurnCase], tmp_path: Path) -> None:
    smoke = TurnSmoke(tuple(cases), tuple(said(PAY) for _ in cases))
    folder = make_tiny_bundle(tmp_path / "bundle", smoke=smoke, site_path=tmp_path / "tools.yaml")
    bundle = open_bundle(folder)
    assert read_turn_smoke(bundle) == smoke
    with pytest.raises(UnavailableError, match="the self-test cannot run here"):  # its model has a header only
        selftest_for(tmp_path)(bundle)
    lines = (folder / SMOKE_RECORD).read_text(encoding="utf-8").splitlines()
    (folder / SMOKE_RECORD).write_text("\n".join(lines[1:]) + "\n", encoding="utf-8")
    rewrite_manifest(folder)
    with pytest.raises(BundleTampered, match="not a record of the cases"):
        read_turn_smoke(open_bundle(folder))
    (folder / SMOKE_RECORD).write_text(json.dumps({"id": 3}) + "\n", encoding="utf-8")
    rewrite_manifest(folder)
    with pytest.raises(BundleTampered, match=r"smoke_record\.jsonl:1"):
        read_turn_smoke(open_bundle(folder))


def test_a_bundle_without_cases_says_so(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "bundle", site_path=toolset_in(tmp_path))
    assert selftest_for(tmp_path)(open_bundle(folder)) == NOTHING_TESTED
