from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.agent.turn import TurnResult
from edge_agent.evaluation.evaluation import evaluate, measure_latency, run_cases, spread
from tests.edge_agent.home_cases import (
    LIGHT_ON,
    CaseEngine,
    answer_text,
    call_text,
    home_cases,
    perfect_engine,
    start_turn,
)

ASK = "turn on the kitchen light"
BAD_CALL = '<think>On.</think><tool_call>{"name":"light_on","arguments":{"device":"moon"}}</tool_call>'


def test_lockstep_keeps_the_batch_full_and_the_order() -> None:
    cases = home_cases()
    engine = perfect_engine(cases)
    seen: list[tuple[int, int]] = []
    outcomes = run_cases(engine, cases, start_turn, batch_size=3, progress=lambda *now: seen.append(now))
    asks = [case.ask for case in cases]
    assert [outcome.case.id for outcome in outcomes] == [case.id for case in cases]
    assert engine.batches[0] == asks[:3]
    assert engine.batches[1] == asks[:3]  # the second step of the same turns
    assert engine.batches[2] == asks[3:6]
    assert engine.batches[3] == [asks[3], *asks[6:8]]  # two answered at once, two cases took their place
    assert max(len(batch) for batch in engine.batches) == 3
    assert seen[-1] == (9, 9)


def test_a_batch_gives_the_same_outcomes_as_one_by_one() -> None:
    cases = home_cases()
    one, many = (run_cases(perfect_engine(cases), cases, start_turn, batch_size=size) for size in (1, 5))
    assert [(item.result, item.state_after) for item in one] == [(item.result, item.state_after) for item in many]


def test_state_after_is_the_worlds() -> None:
    cases = home_cases()[:1]
    (outcome,) = run_cases(perfect_engine(cases), cases, start_turn, batch_size=1)
    assert outcome.case.state["kitchen_light"]["on"] is False
    assert outcome.state_after["kitchen_light"]["on"] is True


def test_free_pass_has_no_grammar_and_the_constrained_one_has() -> None:
    cases = home_cases()[:1]
    engine = perfect_engine(cases)
    grammars: list[bool] = []
    answer = engine.generate
    engine.generate = lambda requests: (  # type: ignore[method-assign]
        grammars.extend(request.grammar is not None for request in requests),
        answer(requests),
    )[1]
    run_cases(engine, cases, start_turn, batch_size=1, is_free=True)
    run_cases(engine, cases, start_turn, batch_size=1)
    assert grammars == [False, False, True, True]


def test_only_cases_with_a_reply_outside_the_grammar_run_again() -> None:
    cases = home_cases()
    engine = perfect_engine(cases)
    engine.free = {ASK: (BAD_CALL,)}
    result = evaluate(engine, cases, start_turn, batch_size=4, latency_cases=0)
    assert result.rerun_cases == 1
    assert result.free[0].result.stop_reason == "unusable"
    assert result.constrained[0].result.actions[0].status == "done"
    assert result.constrained[1:] == result.free[1:]


def test_the_saving_is_exact() -> None:
    cases = home_cases()
    engine = perfect_engine(cases)
    engine.free = {ASK: (BAD_CALL,), cases[3].ask: (call_text("Both.", LIGHT_ON), "no thought")}
    saved = evaluate(engine, cases, start_turn, batch_size=4, latency_cases=0).constrained
    full = run_cases(engine, cases, start_turn, batch_size=4)
    assert [(item.result, item.state_after) for item in saved] == [(item.result, item.state_after) for item in full]


def test_an_accepted_reply_later_in_the_turn_does_not_hide_an_earlier_one() -> None:
    cases = home_cases()[:1]
    engine = perfect_engine(cases)
    engine.free = {ASK: (call_text("On.", LIGHT_ON), "<think>a</think>b<think>")}
    assert evaluate(engine, cases, start_turn, batch_size=1, latency_cases=0).rerun_cases == 1


@pytest.mark.parametrize(("stop_reason", "reruns"), [("end_of_turn", 0), ("length", 1), ("timeout", 1)])
def test_a_reply_that_was_cut_is_never_taken_over(stop_reason: str, reruns: int) -> None:
    cases = [case for case in home_cases() if case.id == "ask-1"]
    engine = perfect_engine(cases)
    answer = engine.generate
    engine.generate = lambda requests: [  # type: ignore[method-assign]
        replace(completion, stop_reason=stop_reason) for completion in answer(requests)
    ]
    assert evaluate(engine, cases, start_turn, batch_size=1, latency_cases=0).rerun_cases == reruns


def test_an_engine_that_accepts_nothing_reruns_everything() -> None:
    cases = home_cases()
    engine = perfect_engine(cases)
    engine.is_accepting = False
    assert evaluate(engine, cases, start_turn, batch_size=9, latency_cases=0).rerun_cases == len(cases)


def test_latency_runs_alone_after_a_warm_up() -> None:
    cases = home_cases()[:3]
    engine = perfect_engine(cases)
    outcomes = measure_latency(engine, cases, start_turn)
    assert len(outcomes) == 3
    assert all(len(batch) == 1 for batch in engine.batches)
    assert [batch[0] for batch in engine.batches[:4]] == [cases[0].ask] * 4  # two steps twice


def test_the_sample_is_spread() -> None:
    cases = home_cases()
    assert spread(cases, 99) == cases
    assert [case.id for case in spread(cases, 3)] == [cases[1].id, cases[4].id, cases[7].id]
    assert spread(cases, 0) == []


def test_progress_names_the_pass() -> None:
    cases = home_cases()[:2]
    seen: list[tuple[str, int, int]] = []
    engine = perfect_engine(cases)
    evaluate(engine, cases, start_turn, batch_size=2, latency_cases=1, progress=lambda *now: seen.append(now))
    assert ("free", 2, 2) in seen
    assert seen[-1] == ("latency", 1, 1)


def test_a_turn_that_needs_no_model() -> None:
    cases = home_cases()[:1]
    done = TurnResult(ASK, "Stopped.", "", "", (), (), (), "answer")

    def start(case):  # type: ignore[no-untyped-def]
        def turn():  # type: ignore[no-untyped-def]
            return done
            yield

        return turn(), start_turn(case)[1]

    (outcome,) = run_cases(CaseEngine({}), cases, start, batch_size=1)
    assert outcome.result is done


def test_answer_text_is_accepted() -> None:
    cases = [case for case in home_cases() if case.id == "range-1"]
    engine = CaseEngine({cases[0].ask: (answer_text("Too high.", "The fan goes up to 3."),)})
    assert evaluate(engine, cases, start_turn, batch_size=1, latency_cases=0).rerun_cases == 0
