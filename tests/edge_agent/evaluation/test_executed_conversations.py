"""Whole conversations: what counts as done, and who answers the calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.site.site import Site, load_site
from devices.site.tools import ToolCall
from edge_agent.evaluation.conversations.executed import (
    ExecutedConversation,
    Execution,
    execute_conversations,
    recorded_answers,
)
from edge_agent.evaluation.conversations.turns import Conversation
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from edge_agent.wire.messages import Message
from tests.edge_agent.agent.test_agent import answer, calls
from tests.edge_agent.evaluation.own.test_own_cases import ScriptedEngine
from tests.toolset import toolset_in

TEMPLATE = load_template("chatml")
REFUND = ("process_refund", {"transaction_id": "TXN9982", "amount": 50})
FIND = ("find_transaction", {"transaction_id": "TXN9982"})


@pytest.fixture
def toolset(tmp_path: Path) -> Site:
    return load_site(toolset_in(tmp_path))


def held(toolset: Site, *system: str) -> Conversation:
    text = system[0] if system else contract_of(toolset, TEMPLATE).system_text
    messages = (
        Message("system", text),
        Message("user", "refund TXN9982, 50"),
        Message("assistant", "", "t", (ToolCall(*REFUND),)),
        Message("tool", '{"refund_id":"REF_1"}'),
        Message("assistant", "Refunded, reference REF_1.", "t"),
        Message("user", "thanks"),
        Message("assistant", "You are welcome.", "t"),
    )
    return Conversation("c", messages, {})


def run(toolset: Site, *replies: str, execution: Execution = "recorded") -> ExecutedConversation:
    engine = ScriptedEngine(*replies)
    (done,) = execute_conversations(engine, toolset, TEMPLATE, [held(toolset)], execution)  # type: ignore[arg-type]
    assert not engine._replies
    return done


def test_done_with_another_way_of_asking_the_same(toolset: Site) -> None:
    slowly = ("process_refund", {"amount": 50.0, "transaction_id": "txn9982"})
    done = run(toolset, calls(slowly), answer("Reference REF_1."), answer("Welcome."))
    assert done.is_done and done.has_facts and done.answers == ("Reference REF_1.", "Welcome.")
    assert not run(toolset, calls(slowly), answer("Reference REF_2."), answer("Welcome.")).is_done


@pytest.mark.parametrize(
    ("first", "missing", "extra"),
    [
        (("process_refund", {"transaction_id": "TXN9982", "amount": 5}), 1, 1),
        (("find_transaction", {"transaction_id": "TXN9982"}), 1, 0),
    ],
)
def test_another_call_is_not_done(
    toolset: Site, first: tuple[str, dict[str, object]], missing: int, extra: int
) -> None:
    done = run(toolset, calls(first), answer("Reference REF_1."), answer("Welcome."))
    assert (len(done.missing), len(done.extra)) == (missing, extra) and not done.is_done


def test_the_executors_answer_when_it_is_live(toolset: Site, tmp_path: Path) -> None:
    done = run(toolset, calls(REFUND), answer("Reference REF_7712."), answer("Welcome."), execution="live")
    assert (tmp_path / "done.txt").read_text(encoding="utf-8").startswith("TXN9982 50 ")
    assert not done.missing and done.has_ended


def test_conversations_of_other_toolsets_are_left_out(toolset: Site) -> None:
    done = execute_conversations(ScriptedEngine(), toolset, TEMPLATE, [held(toolset, "Other.")], "recorded")  # type: ignore[arg-type]
    assert done == []


def test_each_call_has_its_own_line_of_the_results(toolset: Site) -> None:
    two = (ToolCall(*REFUND), ToolCall(*FIND))
    messages = (Message("assistant", "", "t", two), Message("tool", '{"a":1}\nnot found'))
    assert recorded_answers(Conversation("c", messages, {})) == [(two[0], {"a": 1}), (two[1], "not found")]
