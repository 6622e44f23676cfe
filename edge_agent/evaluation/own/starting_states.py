"""pass^k for a greedy model: is the same request done right in each of k starting states?

Decoding is greedy, so asking twice says nothing: the second reply is the first. What differs from day to day is the
state that stands in the prompt. So a case is also begun in other states of what it is not about: settable properties of
devices of other kinds than those it names. Its right outcome stays the same, and so should the reply.

Source: S. Yao et al., tau-bench (2024): pass^k is the chance that all of k trials of a task succeed, averaged over
tasks; there trials are samples, here they are states.
Does not guard against: a case whose right outcome depends on devices that it does not name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import comb
from random import Random

from devices.site.schema import DataSchema, Value
from devices.site.site import Site
from edge_agent.evaluation.intervals import Share, share_of
from edge_agent.evaluation.own.own_cases import Graded, OwnCase, named_in

SEED = 1


@dataclass(frozen=True)
class Repeated:
    """Cases that were begun in several states: how many were right in all, and pass^k for each k from 1.

    `left_out` are the cases that have one state only. `shaky` are the requests that were right in some states and wrong
    in others, each with in how many it was right.
    """

    states: int
    in_all: Share
    pass_k: tuple[float, ...]
    left_out: int
    shaky: tuple[tuple[str, int], ...]


def in_other_states(case: OwnCase, site: Site, count: int) -> list[OwnCase]:
    """Return a case begun in `count` other states; none if its answer is about the state, or nothing can be varied."""
    if any(turn.answer_has for turn in case.turns):
        return []
    named = {site.devices[name.partition(".")[0]].kind for name in named_in(case)}
    named |= {call.action.partition(".")[0] for turn in case.turns for call in turn.calls}
    guards = {one.property for device in site.devices.values() for action in device.actions.values()
              for one in action.requires}  # fmt: skip
    free = {
        f"{device.name}.{key}": device.properties[key]
        for device in site.devices.values()
        if device.kind not in named
        for action in device.actions.values()
        for key in action.writes
        if f"{device.name}.{key}" not in guards
    }
    if not free:
        return []
    rng = Random(f"{SEED} {case.model_dump_json()}")
    states = [{key: _random_value(schema, rng) for key, schema in free.items()} for _ in range(count)]
    return [case.model_copy(update={"start": {**case.start, **state}}) for state in states]


def _random_value(schema: DataSchema, rng: Random) -> Value:
    if schema.type == "boolean":
        return rng.random() < 0.5
    if schema.enum:
        return rng.choice(schema.enum)
    assert schema.minimum is not None and schema.maximum is not None
    low, high = int(-(-schema.minimum // 1)), int(schema.maximum // 1)
    return rng.randint(low, high) if low <= high else schema.minimum


def repeated(
    cases: Sequence[OwnCase], turns: Sequence[Graded], others: Sequence[Sequence[OwnCase]], extra: Sequence[Graded]
) -> Repeated:
    """Sum up what came of cases in their own state (`turns`) and in the others (`extra`, in the order of `others`)."""
    own, more = are_right(cases, turns), are_right([one for each in others for one in each], extra)
    found, rest = list[tuple[OwnCase, int]](), iter(more)
    trials = 1 + max(map(len, others), default=0)
    for case, is_right, each in zip(cases, own, others, strict=True):
        right = is_right + sum(next(rest) for _ in each)
        if each:
            found.append((case, right))
    return Repeated(
        states=trials,
        in_all=share_of(right == trials for _, right in found),
        pass_k=tuple(pass_k([right for _, right in found], trials, k) for k in range(1, trials + 1) if found),
        left_out=len(cases) - len(found),
        shaky=tuple((case.turns[0].ask, right) for case, right in found if 0 < right < trials),
    )


def are_right(cases: Sequence[OwnCase], turns: Sequence[Graded]) -> list[bool]:
    """Return for each case whether all its turns were right."""
    rest = iter(turns)
    of_each = [list(islice(rest, len(case.turns))) for case in cases]
    return [not any(one.problems for one in each) for each in of_each]


def pass_k(right: Sequence[int], trials: int, k: int) -> float:
    """Return the chance that all of k trials succeed: of each task, how many of its trials were right."""
    return sum(comb(one, k) / comb(trials, k) for one in right) / len(right)


def repeated_lines(found: Repeated) -> list[str]:
    """Return it as text for the terminal."""
    if not found.pass_k:
        return [f"no case could be begun in another state ({found.left_out} have one only)"]
    each = ", ".join(f"{share:.1%}" for share in found.pass_k)
    kept = f"{len(found.shaky)} requests right in some states only; {found.left_out} cases have one state only"
    return [
        f"right in all of {found.states} starting states: {found.in_all}",
        f"  pass^1 to pass^{found.states}: {each}; {kept}",
    ]
