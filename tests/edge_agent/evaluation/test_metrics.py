from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.agent.turn import ActionRecord
from edge_agent.evaluation.cases import Case
from edge_agent.evaluation.evaluation import CaseOutcome, evaluate, run_cases
from edge_agent.evaluation.intervals import paired_difference, share_of, wilson
from edge_agent.evaluation.metrics import METRICS, compare, measure, measure_turns
from edge_agent.evaluation.scoring import claims_success, failed_ways, is_same_value, reply_forms, score_case
from tests.edge_agent.home_cases import (
    LIGHT_ON,
    CaseEngine,
    answer_text,
    call_text,
    home_cases,
    make_case,
    perfect_engine,
    right_replies,
    start_turn,
)

CASES = {case.id: case for case in home_cases()}


def right_outcome(case_id: str) -> CaseOutcome:
    cases = [CASES[case_id]]
    return run_cases(perfect_engine(cases), cases, start_turn, batch_size=1)[0]


PORCH_ON = ActionRecord("porch_light", "on", {}, "done", "The porch light is on.")
DIMMED_TO_41 = ActionRecord("bedroom_lamp", "brightness", {"brightness": 41}, "done", "The bedroom lamp is at 41.")


def said(outcome: CaseOutcome, **changes: object) -> CaseOutcome:
    return replace(outcome, result=replace(outcome.result, **changes))


@pytest.mark.parametrize("case_id", CASES)
def test_a_perfect_model_succeeds(case_id: str) -> None:
    assert score_case(right_outcome(case_id)).problems == ()


def test_wrong_device_fails_tool_and_argument() -> None:
    outcome = right_outcome("call-1")
    wrong = ActionRecord("porch_light", "on", {}, "done", "The porch light is on.")
    score = score_case(said(outcome, actions=(wrong,)))
    assert (score.is_tool_right, score.is_argument_right, score.is_success) == (False, False, False)
    assert score.problems == ("called porch_light.on() instead of kitchen_light.on()",)
    assert score.is_wrong_move and not score_case(outcome).is_wrong_move
    assert not score_case(said(outcome, actions=(replace(wrong, status="refused"),))).is_wrong_move


def test_wrong_argument_fails_the_argument_only() -> None:
    outcome = right_outcome("call-2")
    wrong = replace(outcome.result.actions[0], input={"brightness": 41})
    score = score_case(said(outcome, actions=(wrong,)))
    assert (score.is_tool_right, score.is_argument_right, score.is_success) == (True, False, False)


def test_a_whole_number_may_be_written_with_a_point() -> None:
    outcome = right_outcome("call-2")
    same = replace(outcome.result.actions[0], input={"brightness": 40.0})
    assert score_case(said(outcome, actions=(same,))).is_argument_right
    true = replace(outcome.result.actions[0], input={"brightness": True})
    case = replace(outcome.case, commands=(replace(outcome.case.commands[0], input={"brightness": 1}),))
    assert not score_case(replace(said(outcome, actions=(true,)), case=case)).is_argument_right


@pytest.mark.parametrize(("in_order", "is_right"), [(True, False), (False, True)])
def test_order_counts_only_where_the_case_says_so(in_order: bool, is_right: bool) -> None:
    outcome = right_outcome("two-1")
    swapped = said(outcome, actions=outcome.result.actions[::-1])
    score = score_case(replace(swapped, case=replace(outcome.case, in_order=in_order)))
    assert (score.is_tool_right, score.is_success) == (is_right, is_right)


def test_a_call_made_twice_is_not_the_expected_list() -> None:
    outcome = right_outcome("two-1")
    assert not score_case(said(outcome, actions=outcome.result.actions * 2)).is_tool_right


def test_another_verdict_fails() -> None:
    outcome = right_outcome("confirm-1")
    assert outcome.result.actions[0].status == "needs_confirmation"
    done = replace(outcome.result.actions[0], status="done")
    score = score_case(said(outcome, actions=(done,)))
    assert score.is_argument_right and score.problems == ("the broker said done instead of needs_confirmation",)


def test_another_final_state_fails() -> None:
    outcome = right_outcome("call-1")
    state = {name: dict(values) for name, values in outcome.state_after.items()}
    state["porch_light"]["on"] = True
    assert score_case(replace(outcome, state_after=state)).problems == ("porch_light.on is true instead of false",)


def test_a_missing_device_fails() -> None:
    outcome = right_outcome("call-1")
    state = {name: values for name, values in outcome.state_after.items() if name != "porch_light"}
    assert not score_case(replace(outcome, state_after=state)).is_success


@pytest.mark.parametrize(
    ("expected", "got", "is_same"),
    [(20.0, 20.1, True), (20.0, 20.2, False), (20, 20.0, True), (True, True, True), (True, 1, False), (1, True, False),
     ("a", "a", True), ("a", "b", False), (1.0, None, False), (False, None, False)],
)  # fmt: skip
def test_same_values(expected: object, got: object, is_same: bool) -> None:
    assert is_same_value(expected, got) is is_same  # type: ignore[arg-type]


def test_a_call_where_none_was_expected_fails() -> None:
    outcome = right_outcome("ask-1")
    assert score_case(outcome).is_uncalled is True
    action = ActionRecord("front_door", "lock", {}, "done", "The front door is locked.")
    score = score_case(said(outcome, actions=(action,)))
    assert score.is_uncalled is False and not score.is_success and score.is_tool_right is None


def test_the_answer_needs_one_of_each_alternatives() -> None:
    outcome = right_outcome("range-1")
    assert score_case(said(outcome, answer="THREE at most")).is_success
    assert score_case(said(outcome, answer="No.")).problems == ("the answer lacks 3 or three",)


def test_what_the_person_sees_counts_and_not_the_models_words() -> None:
    outcome = right_outcome("range-1")
    assert not score_case(said(outcome, answer="no", model_answer="it goes to 3")).is_success


def test_rubbish_is_no_answer_even_if_no_word_is_asked_for() -> None:
    outcome = right_outcome("range-1")
    outcome = replace(outcome, case=replace(outcome.case, answer_has=()))
    assert score_case(outcome).is_success
    assert not score_case(said(outcome, stop_reason="unusable")).is_success


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("Done.", True),
        ("The kitchen light is on.", True),
        ("I turned it off.", True),
        ("The thermostat is now at 21 degrees.", True),
        ("The front door is locked.", True),
        ("The target is 21 degrees.", True),
        ("", False),
        ("I could not turn it on, it did not change.", False),
        ("The fan is not running.", False),
        ("I can't do that, the door is locked.", False),
        ("Please confirm that the door should be open.", False),
        ("Which light is turned on?", False),
        ("It only goes to 3, which is set.", False),
        ("Hello there.", False),
    ],
)
def test_claims(text: str, claims: bool) -> None:
    assert claims_success(text) is claims


@pytest.mark.parametrize(
    ("text", "has_call", "is_json", "fits", "usable"),
    [
        ('<think>a</think><tool_call>{"name":"light_on","arguments":{"device":"porch_light"}}</tool_call>',
         True, True, True, True),
        ('<think>a</think><tool_call>{"name":"light_on","arguments":{"device":"moon"}}</tool_call>',
         True, True, False, False),
        ('<think>a</think><tool_call>{"name":"light_on",</tool_call>', True, False, False, False),
        ('<think>a</think><tool_call>{"name":"light_on","arguments":{"device":"porch_light"}}',
         True, False, False, False),
        ("<think>a</think><tool_call>[1]</tool_call>", True, False, False, False),
        ('<think>a</think><tool_call>{"name":NaN}</tool_call>', True, False, False, False),
        ("<think>a</think>It is on.", False, True, False, True),
        ("It is on.", False, True, False, False),
    ],
)  # fmt: skip
def test_reply_forms(text: str, has_call: bool, is_json: bool, fits: bool, usable: bool) -> None:
    case = CASES["call-1"]
    engine = perfect_engine([case])
    engine.replies = {case.ask: (text, right_replies(case)[1])}
    form = reply_forms(run_cases(engine, [case], start_turn, batch_size=1))[0]
    assert (form.has_call, form.is_json, form.fits_schema, form.is_usable) == (has_call, is_json, fits, usable)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # Source: R. G. Newcombe, Two-sided confidence intervals for the single proportion, Stat. Med. 17 (1998), table I,
    # method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson(count: int, total: int, low: float, high: float) -> None:
    share = wilson(count, total)
    assert share.share == count / total
    assert (share.low, share.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


def test_wilson_ends() -> None:
    assert wilson(20, 20).high == 1.0 and wilson(20, 20).low == pytest.approx(1 - 0.1611, abs=6e-5)
    assert wilson(0, 0).share is None and share_of([]).total == 0


def test_paired_difference() -> None:
    first, second = [False] * 60 + [True] * 40, [True] * 30 + [False] * 30 + [True] * 30 + [False] * 10
    value = paired_difference(first, second)
    assert (value.difference, value.gained, value.lost, value.total) == (0.2, 30, 10, 100)
    # Normal approximation: sd of a change is 0.6, so 0.2 plus and minus 1.96 * 0.06.
    assert (value.low, value.high) == (pytest.approx(0.082, abs=0.02), pytest.approx(0.318, abs=0.02))
    assert paired_difference(first, second) == value  # fixed seed
    back = paired_difference(second, first)
    assert back.difference == -0.2 and back.gained == 10


def test_no_change_is_no_proof_of_none() -> None:
    value = paired_difference([True] * 20, [True] * 20)
    assert value.difference == 0.0 and value.high == pytest.approx(0.1611, abs=6e-5) and value.low == -value.high
    assert paired_difference([False] * 20, [True] * 20).high == 1.0
    assert paired_difference([], []).difference is None


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_difference([True], [True, False])


def measured(failing: dict[str, tuple[str, ...]]):  # type: ignore[no-untyped-def]
    cases: list[Case] = list(CASES.values())
    engine = perfect_engine(cases)
    engine.replies |= {CASES[case_id].ask: replies for case_id, replies in failing.items()}
    return measure(evaluate(engine, cases, start_turn, batch_size=4, latency_cases=3))


def test_measure_counts() -> None:
    perfect = measured({})
    assert set(perfect.shares) == set(METRICS)
    assert (perfect.shares["task_success"].count, perfect.shares["task_success"].total) == (9, 9)
    assert (perfect.shares["tool_accuracy"].total, perfect.shares["no_call_accuracy"].total) == (7, 2)
    assert perfect.shares["false_success"].total == 0 and perfect.by_kind["call"].total == 3

    liar = measured({"call-1": ("<think>a</think>The kitchen light is on.",), "call-3": ("<think>a</think>I cannot.",)})
    assert (liar.shares["false_success"].count, liar.shares["false_success"].total) == (1, 2)
    assert (liar.shares["false_success_of_all"].count, liar.shares["false_success_of_all"].total) == (1, 9)
    assert liar.shares["false_success_heard"].count == 1
    assert liar.by_kind["call"].count == 1

    change = compare(perfect, liar)
    assert (change["task_success"].lost, change["task_success"].gained) == (2, 0)
    assert change["no_call_accuracy"].total == 2 and change["tool_accuracy"].difference == pytest.approx(-2 / 7)


def test_measure_counts_what_was_held_back() -> None:
    cases = list(CASES.values())
    engine = perfect_engine(cases)
    engine.is_accepting, engine.overruled = False, frozenset({CASES["call-1"].ask, CASES["ask-1"].ask})
    found = measure(evaluate(engine, cases, start_turn, batch_size=4, latency_cases=0))
    assert (found.shares["held_back"].count, found.shares["task_success"].count) == (1, 8)
    assert (found.shares["wrong_move"].count, found.shares["wrong_move"].total) == (0, 9)


def test_measure_counts_questions_that_were_due_and_others() -> None:
    """The model picks one each time, and the agent asks back; the second time a call was due."""
    due = make_case("due-1", "which_one", "light on", answer_has=(("?",), ("kitchen light",), ("porch light",)))
    cases = [due, make_case("call-1", "call", "turn the light on", LIGHT_ON), CASES["call-2"]]
    engine = CaseEngine({one.ask: (call_text("", LIGHT_ON), answer_text("", "Done.")) for one in cases[:2]})
    engine.replies |= perfect_engine(cases[2:]).replies
    found = measure(evaluate(engine, cases, start_turn, batch_size=4, latency_cases=0))
    shares = [(found.shares[name].count, found.shares[name].total) for name in ("asked", "asked_needlessly")]
    assert shares == [(1, 1), (1, 2)]
    assert [score.is_success for score in found.scores] == [True, False, True]


def test_a_claim_after_a_call_is_not_heard() -> None:
    wrong = call_text("Both.", LIGHT_ON)
    liar = measured({"two-1": (wrong, answer_text("", "Done, both are on."))})
    assert (liar.shares["false_success"].count, liar.shares["false_success_heard"].count) == (1, 0)


def test_measure_turns() -> None:
    outcome = right_outcome("call-1")
    outcomes = [replace(outcome, seconds=seconds) for seconds in (3.0, 1.0, 2.0)]
    latency = measure_turns(outcomes)
    assert latency is not None
    assert (latency.turns, latency.turn_s.median, latency.turn_s.p95) == (3, 2.0, pytest.approx(2.9))
    # Each turn has two completions: 500 prompt tokens with 480 reused and 0.02 s, 4 forced tokens, 0.1 s.
    tokens = sum(len(completion.token_ids) for completion in outcome.result.completions)
    assert latency.prefill_tokens_per_s == pytest.approx(1000)
    assert latency.decode_tokens_per_s == pytest.approx(tokens / 0.2)
    assert (latency.forced_tokens, latency.model_steps, latency.reply_tokens) == (8, tokens - 8, tokens)
    assert latency.reused_share == pytest.approx(0.96) and latency.first_prefill_s.median == 0.02
    assert latency.prefill_s.median == pytest.approx(0.04) and latency.seconds == (1.0, 2.0, 3.0)
    assert measure_turns([]) is None


@pytest.mark.parametrize(
    ("case_id", "changes", "ways"),
    [
        ("call-1", {"actions": (), "model_answer": "The kitchen light is on."}, ["no call", "says done"]),
        (
            "call-1",
            {"actions": (), "model_answer": "Which one?", "answer": "Which one?"},
            ["no call", "asked needlessly"],
        ),
        ("call-1", {"actions": (), "model_answer": "", "stop_reason": "unsure"}, ["no call", "held back"]),
        ("call-1", {"actions": (PORCH_ON,), "model_answer": ""}, ["wrong tool", "moved what it should not"]),
        ("call-2", {"actions": (DIMMED_TO_41,), "model_answer": ""}, ["wrong arguments", "moved what it should not"]),
        ("ask-1", {"actions": (PORCH_ON,)}, ["called, and none was due", "moved what it should not"]),
        ("range-1", {"answer": "No."}, ["wrong answer"]),
        ("range-1", {"stop_reason": "unusable"}, ["other outcome"]),
    ],
)
def test_a_failure_says_in_which_ways(case_id: str, changes: dict[str, object], ways: list[str]) -> None:
    outcome = said(right_outcome(case_id), **changes)
    assert failed_ways(outcome, score_case(outcome)) == ways


def test_a_question_that_was_due_and_not_asked_is_a_way_to_fail() -> None:
    outcome = said(right_outcome("range-1"), answer="No.")
    outcome = replace(outcome, case=replace(outcome.case, answer_has=(("?",),)))
    assert failed_ways(outcome, score_case(outcome)) == ["did not ask", "wrong answer"]
