"""Sum up one engine's evaluation: shares with intervals, success by kind, time, tokens, memory.

The rules for one case are in scoring.py, the statistics in intervals.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.evaluation.evaluation import CaseOutcome, Evaluation
from edge_agent.evaluation.intervals import Difference, Share, paired_difference, share_of
from edge_agent.evaluation.scoring import CaseScore, asks_back, is_question_due, reply_forms, score_case

METRICS = {
    "task_success": "Tasks done",
    "task_success_free": "Tasks done without the grammar",
    "tool_accuracy": "Calls due: right devices and actions",
    "argument_accuracy": "Calls due: right arguments too",
    "no_call_accuracy": "No call due: none made",
    "wrong_move": "Tasks in which something was moved that should not be",
    "asked": "Questions due: asked back",
    "asked_needlessly": "Calls due: asked back all the same",
    "held_back": "Tasks in which a call was held back, because the grammar had changed it",
    "json_valid_free": "Free calls that are valid JSON",
    "schema_valid_free": "Free calls that fit their schema",
    "reply_usable_free": "Free replies that can be used",
    "json_valid": "Calls with the grammar, valid JSON",
    "schema_valid": "Calls with the grammar, fit their schema",
    "reply_usable": "Replies with the grammar, can be used",
    "false_success": "Failed calls the model reports as done",
    "false_success_heard": "Failed calls the person is told are done",
    "false_success_of_all": "Failed calls the model reports as done, of all tasks",
}
COMPARED = ("task_success", "task_success_free", "tool_accuracy", "argument_accuracy", "no_call_accuracy")


@dataclass(frozen=True)
class Spread:
    """Median and 95th percentile, in the unit of the values."""

    median: float
    p95: float


@dataclass(frozen=True)
class Latency:
    """Time and work of turns run alone, constrained, on a warm engine.

    Attributes:
        turns: how many turns were timed.
        turn_s: from the request to the end of the turn, broker and simulated devices included.
        first_prefill_s: evaluation of the prompt before the first reply's first token.
        prefill_s: evaluation of all prompts of a turn.
        decode_s: making the tokens of all replies of a turn.
        prefill_tokens_per_s: prompt tokens that were evaluated (not reused), over all turns; None without any.
        decode_tokens_per_s: reply tokens, forced ones included, over all turns; None without any.
        model_steps: evaluations of the model, mean per turn.
        reply_tokens: tokens of all replies, mean per turn.
        forced_tokens: of these, tokens the grammar gave without asking the model, mean per turn.
        reused_share: prompt tokens that were in the cache, of all prompt tokens; None without any.
        seconds: each turn's time, sorted.
    """

    turns: int
    turn_s: Spread
    first_prefill_s: Spread
    prefill_s: Spread
    decode_s: Spread
    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    model_steps: float
    reply_tokens: float
    forced_tokens: float
    reused_share: float | None
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class EngineMetrics:
    """What one engine's evaluation comes to.

    `shares` has the keys of METRICS; `by_kind` is task success; `scores` and `free_scores` are in the cases' order.
    """

    engine: str
    cases: int
    shares: dict[str, Share]
    by_kind: dict[str, Share]
    latency: Latency | None
    memory_bytes: int
    rerun_cases: int
    wall_s: float
    scores: tuple[CaseScore, ...]
    free_scores: tuple[CaseScore, ...]


def measure(evaluation: Evaluation) -> EngineMetrics:
    """Return the metrics of one engine."""
    scores = tuple(score_case(outcome) for outcome in evaluation.constrained)
    free_scores = tuple(score_case(outcome) for outcome in evaluation.free)
    failed_calls = [score for score in scores if not score.is_success and score.is_tool_right is not None]
    false_claims = [score.claims_success for score in failed_calls]
    shares = {name: share_of(flags.values()) for name, flags in _flags(scores, free_scores).items()}
    shares |= _form_shares(evaluation.free, "_free") | _form_shares(evaluation.constrained, "")
    shares["wrong_move"] = share_of(score.is_wrong_move for score in scores)
    shares["asked"] = share_of(asks_back(one) for one in evaluation.constrained if is_question_due(one.case))
    shares["asked_needlessly"] = share_of(asks_back(one) for one in evaluation.constrained if one.case.commands)
    shares["held_back"] = share_of(outcome.result.stop_reason == "unsure" for outcome in evaluation.constrained)
    shares["false_success"] = share_of(false_claims)
    shares["false_success_heard"] = share_of(score.is_claim_heard for score in failed_calls)
    shares["false_success_of_all"] = share_of([*false_claims, *[False] * (len(scores) - len(failed_calls))])
    kinds = sorted({score.kind for score in scores})
    return EngineMetrics(
        engine=evaluation.engine,
        cases=len(scores),
        shares={name: shares[name] for name in METRICS},
        by_kind={kind: share_of(score.is_success for score in scores if score.kind == kind) for kind in kinds},
        latency=measure_turns(evaluation.latency),
        memory_bytes=evaluation.memory_bytes,
        rerun_cases=evaluation.rerun_cases,
        wall_s=evaluation.wall_s,
        scores=scores,
        free_scores=free_scores,
    )


def _flags(scores: Iterable[CaseScore], free_scores: Iterable[CaseScore]) -> dict[str, dict[str, bool]]:
    """Return, for each of COMPARED, the verdict by case id where the metric applies."""
    listed = list(scores)
    return {
        "task_success": {score.id: score.is_success for score in listed},
        "task_success_free": {score.id: score.is_success for score in free_scores},
        "tool_accuracy": {score.id: score.is_tool_right for score in listed if score.is_tool_right is not None},
        "argument_accuracy": {
            score.id: score.is_argument_right for score in listed if score.is_argument_right is not None
        },
        "no_call_accuracy": {score.id: score.is_uncalled for score in listed if score.is_uncalled is not None},
    }


def _form_shares(outcomes: Sequence[CaseOutcome], ending: str) -> dict[str, Share]:
    forms = reply_forms(outcomes)
    calls = [form for form in forms if form.has_call]
    return {
        f"json_valid{ending}": share_of(form.is_json for form in calls),
        f"schema_valid{ending}": share_of(form.fits_schema for form in calls),
        f"reply_usable{ending}": share_of(form.is_usable for form in forms),
    }


def compare(first: EngineMetrics, second: EngineMetrics) -> dict[str, Difference]:
    """Return second minus first for each of COMPARED, paired by case. Both must have run the same cases."""
    before, after = _flags(first.scores, first.free_scores), _flags(second.scores, second.free_scores)
    return {
        name: paired_difference(list(before[name].values()), [after[name][case_id] for case_id in before[name]])
        for name in COMPARED
    }


def measure_turns(outcomes: Sequence[CaseOutcome]) -> Latency | None:
    """Return time and work of turns that were run one by one; None if none were."""
    turns = [outcome for outcome in outcomes if outcome.result.completions]
    if not turns:
        return None
    completions = [completion for outcome in turns for completion in outcome.result.completions]
    prompt_tokens = sum(completion.prompt_tokens for completion in completions)
    reused_tokens = sum(completion.reused_tokens for completion in completions)
    reply_tokens = sum(len(completion.token_ids) for completion in completions)
    prefill_s = [sum(completion.prefill_s for completion in outcome.result.completions) for outcome in turns]
    decode_s = [sum(completion.decode_s for completion in outcome.result.completions) for outcome in turns]
    return Latency(
        turns=len(turns),
        turn_s=_spread_of([outcome.seconds for outcome in turns]),
        first_prefill_s=_spread_of([outcome.result.completions[0].prefill_s for outcome in turns]),
        prefill_s=_spread_of(prefill_s),
        decode_s=_spread_of(decode_s),
        prefill_tokens_per_s=_ratio(prompt_tokens - reused_tokens, sum(prefill_s)),
        decode_tokens_per_s=_ratio(reply_tokens, sum(decode_s)),
        model_steps=sum(completion.model_steps for completion in completions) / len(turns),
        reply_tokens=reply_tokens / len(turns),
        forced_tokens=sum(completion.forced_tokens for completion in completions) / len(turns),
        reused_share=_ratio(reused_tokens, prompt_tokens),
        seconds=tuple(sorted(outcome.seconds for outcome in turns)),
    )


def _spread_of(values: Sequence[float]) -> Spread:
    return Spread(*np.quantile(values, [0.5, 0.95]).tolist())


def _ratio(amount: float, whole: float) -> float | None:
    return amount / whole if whole > 0 else None
