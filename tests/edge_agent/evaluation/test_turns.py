"""Strict evaluation of replies: what counts as right, and what each metric sees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from devices.errors import UsageError
from devices.site.site import load_site
from devices.site.tools import ToolCall
from edge_agent.engine.engine import Completion, Request
from edge_agent.evaluation.conversations.turn_report import (
    METRICS,
    by_argument,
    by_tool,
    metrics_of,
    to_plain,
    turns_table,
    ways_of,
)
from edge_agent.evaluation.conversations.turns import (
    Conversation,
    TurnCase,
    cases_of,
    context_tokens_for,
    play_turns,
    read_turn_cases,
    renamed_conversations,
    score_turn,
)
from edge_agent.evaluation.report_page import render_turns
from edge_agent.grammar.grammar import Grammar
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import Contract, contract_of
from edge_agent.wire.messages import Message, body_of, message_to_dict
from tests.toolset import toolset_in

SCHEMAS = {
    "pay": {"type": "object", "properties": {"to": {"type": "string"}, "amount": {"type": "number"}},
            "required": ["to", "amount"]},
    "find": {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]},
}  # fmt: skip
PAY = ToolCall("pay", {"to": "Ann", "amount": 5})
CONVERSATION = (
    Message("system", "You pay."),
    Message("user", "pay Ann 5"),
    Message("assistant", "", "t", (PAY,)),
    Message("tool", '{"id":"REF_7712","amount":5.0}'),
    Message("assistant", "Paid 5, reference REF_7712.", "t"),
)
CONTRACT = Contract(load_template("chatml"), "You pay.", (), None)
CALLING, ANSWERING = cases_of(Conversation("c", CONVERSATION, SCHEMAS))


def done(text: str, stop_reason: str = "end_of_turn") -> Completion:
    return Completion(text, (), stop_reason, 0, 0, 0, 0, 0, (), 0.0, 0.0)  # type: ignore[arg-type]


def reply(*calls: ToolCall) -> str:
    return body_of(Message("assistant", "", "t", calls))


def score(case: TurnCase, text: str, stop_reason: str = "end_of_turn"):  # type: ignore[no-untyped-def]
    return score_turn(case, done(text, stop_reason))


def test_each_trained_reply_is_a_case() -> None:
    assert (CALLING.kind, ANSWERING.kind) == ("pay", "answer") and len(ANSWERING.before) == 4
    untrained = (*CONVERSATION[:2], Message("assistant", "Wrong.", is_trained=False), *CONVERSATION[1:])
    assert [len(one.before) for one in cases_of(Conversation("c", untrained, SCHEMAS))] == [4, 6]


@pytest.mark.parametrize(
    ("arguments", "is_exact", "is_right"),
    [
        ({"to": "Ann", "amount": 5}, True, True),
        ({"amount": 5, "to": "Ann"}, True, True),
        ({"to": " ann", "amount": 5.0}, False, True),
        ({"to": "Bob", "amount": 5}, False, False),
        ({"to": "Ann", "amount": 6}, False, False),
    ],
)
def test_arguments_exact_and_normalised(arguments: dict[str, object], is_exact: bool, is_right: bool) -> None:
    one = score(CALLING, reply(ToolCall("pay", arguments)))
    assert (one.is_tool_right, one.is_exact, one.is_right, one.is_good) == (True, is_exact, is_right, is_right)


@pytest.mark.parametrize("day", ["2026-03-02", "02.03.2026", "2 March 2026", "March 2, 2026"])
def test_a_day_is_a_day(day: str) -> None:
    (case,) = cases_of(Conversation("c", (CONVERSATION[0], Message("user", "?"), Message(
        "assistant", "", "t", (ToolCall("find", {"day": "2026-03-02"}),))), SCHEMAS))  # fmt: skip
    assert score(case, reply(ToolCall("find", {"day": day}))).is_right
    assert not score(case, reply(ToolCall("find", {"day": "2026-03-03"}))).is_right


def test_each_metric_sees_its_fault() -> None:
    answered = score(CALLING, body_of(Message("assistant", "Paid.", "t")))
    assert not answered.is_decided and answered.is_json is None and not answered.is_good
    invented = score(CALLING, reply(ToolCall("send", {"to": "Ann"})))
    assert invented.invents_tool and not invented.is_usable and invented.is_json and invented.is_tool_right is False
    argument = score(CALLING, reply(ToolCall("pay", {"to": "Ann", "amount": 5, "fast": True})))
    assert argument.invents_argument and not argument.is_usable
    broken = score(CALLING, '<think> t</think><tool_call>{"name":"pay","arguments":{"to":')
    assert broken.is_json is False and not broken.is_usable
    assert not score(CALLING, reply(PAY), "length").is_good
    called = score(ANSWERING, reply(PAY))
    assert not called.is_decided and not called.is_good


def test_an_answer_has_the_results_facts() -> None:
    assert score(ANSWERING, body_of(Message("assistant", "It is ref_7712 for 5.00.", "t"))).is_good
    wrong = score(ANSWERING, body_of(Message("assistant", "Paid 5, reference REF_7713.", "t")))
    assert wrong.has_facts is False and not wrong.is_good


def test_parallel_calls_and_their_order() -> None:
    two = (PAY, ToolCall("pay", {"to": "Bob", "amount": 1}))
    (case,) = cases_of(
        Conversation("c", (CONVERSATION[0], Message("user", "?"), Message("assistant", "", "t", two)), SCHEMAS)
    )
    assert score(case, reply(*two)).is_ordered is True
    turned = score(case, reply(two[1], two[0]))
    assert turned.is_right and turned.is_ordered is True  # the same tools, whoever is first
    mixed = (PAY, ToolCall("find", {"day": "x"}))
    (case,) = cases_of(
        Conversation("c", (CONVERSATION[0], Message("user", "?"), Message("assistant", "", "t", mixed)), SCHEMAS)
    )
    assert score(case, reply(*mixed[::-1])).is_ordered is False
    assert score(case, reply(PAY)).is_tool_right is False


class Scripted:
    """An engine that says one thing freely, and another under a grammar."""

    def __init__(self, free: str, constrained: str) -> None:
        self.free, self.constrained = free, constrained

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        return [done(self.constrained if one.grammar else self.free) for one in requests]

    def accepts(self, grammar: Grammar, token_ids: Sequence[int]) -> bool:
        return False


def test_both_passes_and_the_table() -> None:
    engine = Scripted(reply(ToolCall("send", {})), reply(PAY))
    free, constrained = play_turns(engine, [CALLING], load_template("chatml"), batch_size=2)  # type: ignore[arg-type]
    assert not free[0].is_good and constrained[0].is_good
    assert metrics_of(constrained)["tool"].count == 1 and metrics_of(free)["facts"].total == 0
    assert by_tool(constrained)["pay"].count == 1 and list(by_argument(constrained)) == ["pay.amount", "pay.to"]
    table = turns_table([("Q8_0", (free, constrained))])
    assert "Q8_0, grammar" in table and "  pay.amount" in table and "0/1 (0-79 %)" in table
    plain = {
        "title": "t",
        "command": "c",
        "cases": "f",
        "replies": 1,
        "models": to_plain([("Q8_0", (free, constrained))]),
    }
    json.dumps(plain)
    page = render_turns(plain, [(name, title) for name, title, _ in METRICS])
    assert "arguments are right, normalised" in page and "every reply was good" in page
    plain["models"] = to_plain([("Q8_0", (free, free))])
    page = render_turns(plain, [])
    assert "&#34;send&#34;" in page and "other tools, invented a tool" in page
    assert "<legend>What went wrong</legend>" in page and "<legend>Model</legend>" not in page
    plain["models"] = to_plain([("F16", (free, free)), ("Q8_0", (free, free))])
    assert "<fieldset><legend>Model</legend>" in render_turns(plain, [])


@pytest.mark.parametrize(
    ("case", "said", "ways"),
    [
        (CALLING, reply(PAY), []),
        (CALLING, reply(ToolCall("find", {"day": "x"})), ["other tools"]),
        (CALLING, body_of(Message("assistant", "It is paid.", "t")), ["answered, and should have called"]),
        (CALLING, reply(ToolCall("pay", {"amount": 9, "to": "Ann"})), ["wrong arguments"]),
        (CALLING, reply(ToolCall("send", {})), ["other tools", "invented a tool", "cannot be used"]),
        (ANSWERING, reply(PAY), ["called, and should have answered"]),
        (ANSWERING, body_of(Message("assistant", "It is done.", "t")), ["facts are missing"]),
    ],
)
def test_a_reply_is_not_good_in_named_ways(case: TurnCase, said: str, ways: list[str]) -> None:
    assert ways_of(score(case, said)) == ways


def test_cases_are_read_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "held_out.jsonl"
    row = {"messages": [message_to_dict(one) for one in CONVERSATION], "schemas": SCHEMAS}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    cases = read_turn_cases(path, CONTRACT)
    assert [one.id for one in cases] == ["held_out-1-2", "held_out-1-4"] and context_tokens_for(
        cases, load_template("chatml")
    )
    path.write_text('{"schemas": {}}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"held_out\.jsonl:1"):
        read_turn_cases(path, CONTRACT)


def test_renamed_conversations_are_the_same_under_other_names(tmp_path: Path) -> None:
    toolset = load_site(toolset_in(tmp_path))
    text = contract_of(toolset, load_template("chatml")).system_text
    pay = ToolCall("process_refund", {"transaction_id": "TXN1", "amount": 5})
    own = Conversation(
        "a", (Message("system", text), Message("user", "?"), Message("assistant", "", "so process_refund.", (pay,))), {}
    )
    (one,) = renamed_conversations([own, Conversation("b", CONVERSATION, SCHEMAS)], toolset, 1)
    (call,) = one.messages[2].calls
    assert call.name in one.schemas and f"so {call.name}." == one.messages[2].thought
    assert list(call.arguments.values()) == ["TXN1", 5] and "transaction_id" not in call.arguments
    assert f"- {call.name}(" in one.messages[0].text and "process_refund" not in one.messages[0].text
    assert one == renamed_conversations([own], toolset, 1)[0] != renamed_conversations([own], toolset, 2)[0]
    with pytest.raises(UsageError, match="no conversation has the system text of refunds"):
        renamed_conversations([Conversation("b", CONVERSATION, SCHEMAS)], toolset, 1)


@pytest.mark.parametrize(
    ("reason", "would_do"),
    [
        ("the parcel 7 was late", True),
        ("late, parcel 7", True),
        ("late", False),  # without its code
        ("", False),
        (None, False),
    ],
)
def test_composed_text_need_only_have_the_same_codes(reason: str | None, would_do: bool) -> None:
    schema = {"type": "object", "properties": {"to": {"type": "string"}, "reason": {"type": "string"}}}
    expected = ToolCall("pay", {"to": "Ann Lee", "reason": "parcel 7 came late"})
    talk = (CONVERSATION[0], Message("user", "pay Ann Lee"), Message("assistant", "", "t", (expected,)))
    (case,) = cases_of(Conversation("c", talk, {"pay": schema}))
    given = {"to": "ann lee"} | ({} if reason is None else {"reason": reason})
    found = score(case, reply(ToolCall("pay", given)))
    assert found.would_do is would_do and found.is_good is would_do and found.is_right is False
    assert not score(case, reply(ToolCall("pay", given | {"to": "Ann Li"}))).would_do  # it was said, and is no text
