"""Cases that a person writes: a request or a conversation, and what must be so afterwards. Graded by the world's state.

A case says what it is about and not how it is done: which calls were made does not matter, except where nothing but a
call could answer. Whatever it does not name must stay as it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, ValidationError, model_validator

from devices.errors import UsageError
from devices.simulation.world import World
from devices.site.schema import Value
from devices.site.site import Site
from devices.yaml_file import Strict, plain_values, read_yaml
from edge_agent.agent.simulation import Simulation
from edge_agent.agent.turn import TurnResult
from edge_agent.engine.engine import Completion, ContextFull, Engine, Request
from edge_agent.evaluation.cases import State
from edge_agent.evaluation.scoring import answer_problems, is_same_value

Step = Literal["sentence", "model", "question"]
Wanted = dict[str, Value]  # by device.property
Problem = tuple[str, str]  # what kind of problem, and what it is
Range = Annotated[tuple[float, float], Field(strict=False)]


class OwnCall(Strict):
    """A call that must be made: `action` is kind.action, `input` its arguments."""

    action: str
    input: dict[str, Value] = Field(default_factory=dict)


class OwnTurn(Strict):
    """One request, and what must be so after it.

    `expect` has the properties that must have these values, `expect_any` several such, one of which must hold, and
    `expect_range` bounds; all other settable properties stay as they were. `needs` is the device of which an action
    must be asked to be confirmed. Each list of `answer_has` has words one of which the answer must have.
    """

    ask: str = Field(min_length=1)
    expect: Wanted | None = None
    expect_any: tuple[Wanted, ...] = Field(default=(), strict=False)
    expect_range: dict[str, Range] = Field(default_factory=dict)
    needs: str = ""
    calls: tuple[OwnCall, ...] = Field(default=(), strict=False)
    answer_has: tuple[Annotated[tuple[str, ...], Field(strict=False)], ...] = Field(default=(), strict=False)

    @property
    def ways(self) -> tuple[Wanted, ...]:
        """What may be so afterwards, each way of it."""
        return self.expect_any or (self.expect or {},)


class OwnCase(Strict):
    """A request, or a conversation of several, that begins in a state of the world."""

    kind: str = ""
    start: Wanted = Field(default_factory=dict)
    turns: tuple[OwnTurn, ...] = Field(strict=False, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _take_one_turn(cls, raw: Any) -> Any:
        """Take a case that is a single turn, with the keys of both."""
        if not isinstance(raw, dict) or "turns" in raw:
            return raw
        own = {key: value for key, value in raw.items() if key in ("kind", "start")}
        return own | {"turns": [{key: value for key, value in raw.items() if key not in own}]}


@dataclass(frozen=True)
class Graded:
    """A turn with what came of it.

    `problems` says why it failed, and is empty if it did not; `ways` has the kinds of these problems. `confidence` is
    how probable the model found what it had done without asking (0 to 1), None if it did nothing. `step` is who worked
    it: a known sentence, the model, or a question back.
    """

    kind: str
    ask: str
    answer: str
    actions: tuple[str, ...]
    problems: tuple[str, ...]
    confidence: float | None = None
    thought: str = ""
    step: Step = "model"
    ways: tuple[str, ...] = ()


def read_own_cases(path: Path, site: Site) -> list[OwnCase]:
    """Return the cases of a YAML file.

    Raises:
        UsageError: it cannot be read, or a case has a wrong key or a property that the site has not; with its line.
    """
    source = read_yaml(path, "cases")
    if not isinstance(source.root, list) or not source.root:
        raise UsageError(f"{path}: a file of cases is a list", hint='- {ask: "...", expect: {device.property: value}}')
    cases = []
    for number, entry in enumerate(source.root):
        if not isinstance(entry, dict):
            raise source.fail((number,), f'case {number + 1} is no mapping, as {{ask: "...", expect: {{}}}} is')
        try:
            case = OwnCase.model_validate(plain_values(entry))
        except ValidationError as error:
            raise source.explain((number,), error, OwnCase) from error
        for named in named_in(case):
            device, _, key = named.partition(".")
            if device not in site.devices or (key and key not in site.devices[device].properties):
                raise source.fail((number,), f"case {number + 1} names {named}, which {site.name} does not have")
        cases.append(case)
    return cases


def named_in(case: OwnCase) -> Iterator[str]:
    """Yield every device and every device.property that a case names."""
    yield from case.start
    for turn in case.turns:
        yield from [key for way in turn.ways for key in way]
        yield from turn.expect_range
        yield from [turn.needs] if turn.needs else []


class Results(Protocol):
    """What is known of cases (result_cache.py)."""

    def get(self, case: OwnCase) -> list[Graded] | None:
        """Return what came of a case, or None if that is not known."""
        ...

    def put(self, case: OwnCase, turns: list[Graded]) -> None:
        """Keep what came of a case."""
        ...


_Playing = Generator[Request, Completion, list[Graded]]
_OpenCase = tuple[int, _Playing, Request]


def run_own_cases(
    cases: Sequence[OwnCase],
    simulation: Simulation,
    engine: Engine,
    *,
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
    cache: Results | None = None,
) -> list[Graded]:
    """Return what an engine does with each turn of the cases, in order; each case has a world of its own.

    Up to `batch_size` cases advance in lockstep: the engine is asked for all their next replies at once. What `cache`
    knows is not run again, and what is run is put there as soon as it is done.
    """
    graded = {number: known for number, case in enumerate(cases) if cache and (known := cache.get(case)) is not None}
    waiting = deque((number, case) for number, case in enumerate(cases) if number not in graded)
    open_cases: list[_OpenCase] = []

    def go_on(number: int, playing: _Playing, told: Completion | ContextFull | None) -> None:
        try:
            request = playing.throw(told) if isinstance(told, ContextFull) else playing.send(told)  # type: ignore[arg-type]
        except StopIteration as ended:
            graded[number] = ended.value
            if cache:
                cache.put(cases[number], ended.value)
        else:
            open_cases.append((number, playing, request))

    while waiting or open_cases:
        while waiting and len(open_cases) < batch_size:
            number, case = waiting.popleft()
            go_on(number, _play(case, simulation), None)  # None starts it
        asked, open_cases = open_cases, []
        for (number, playing, _), told in zip(asked, _replies(engine, asked), strict=True):
            go_on(number, playing, told)
        if progress:
            progress(len(graded), len(cases))
    return [one for number in range(len(cases)) for one in graded[number]]


def _replies(engine: Engine, open_cases: Sequence[_OpenCase]) -> list[Completion | ContextFull]:
    """Return an engine's replies; where one conversation has become too long, each is asked for alone."""
    requests = [request for _, _, request in open_cases]
    if not requests:
        return []
    try:
        return list(engine.generate(requests))
    except ContextFull as error:
        if len(requests) == 1:
            return [error]
        return [reply for one in open_cases for reply in _replies(engine, [one])]


def _play(case: OwnCase, simulation: Simulation) -> _Playing:
    """Work a case turn by turn, in one world; yields what the engine must complete, and returns the turns, graded."""
    state: State = {}
    for key, value in case.start.items():
        device, _, name = key.partition(".")
        state.setdefault(device, {})[name] = value
    world = World(simulation.site, state)
    agent, graded = simulation.agent(world), []
    for number, turn in enumerate(case.turns):
        before = world.snapshot()
        result = yield from agent.run(turn.ask)
        problems = problems_of(turn, simulation.site, before, world.snapshot(), result)
        texts, ways = tuple(text for _, text in problems), tuple(dict.fromkeys(way for way, _ in problems))
        kind = case.kind if len(case.turns) == 1 else "follow-up" if number else "first turn"
        done = tuple(f"{one.device}.{one.action}({one.input}) {one.status}" for one in result.actions)
        has_acted = any(one.status != "needs_confirmation" for one in result.actions)
        confidence = result.confidence if has_acted else None
        step = _step_of(result)
        graded.append(Graded(kind, turn.ask, result.answer, done, texts, confidence, result.thought, step, ways))
    return graded


def _step_of(result: TurnResult) -> Step:
    if result.stop_reason == "question":
        return "question"
    return "model" if result.completions or not result.actions else "sentence"


def problems_of(turn: OwnTurn, site: Site, before: State, after: State, result: TurnResult) -> list[Problem]:
    """Return what is not as a turn says it must be, each with what kind of problem it is."""
    settable = {
        f"{device.name}.{key}"
        for device in site.devices.values()
        for action in device.actions.values()
        for key in action.writes
    }
    old, new = _flat(before), _flat(after)
    idle = "asked back" if result.answer.rstrip().endswith("?") else "did nothing"
    wrong = "wrong value or device" if result.actions else idle
    found = min((_way_problems(way, turn, settable, old, new, wrong) for way in turn.ways), key=len)
    asked = {one.device for one in result.actions if one.status == "needs_confirmation"}
    if turn.needs and turn.needs not in asked:
        found.append(("did not ask to confirm", f"{turn.needs} was not asked to be confirmed"))
    made = [(f"{site.devices[one.device].kind}.{one.action}", one.input) for one in result.actions]
    missing = [call for call in turn.calls if (call.action, call.input) not in made]
    found += [("call not made", f"{call.action}({call.input}) was not called") for call in missing]
    return found + [("wrong answer", text) for text in answer_problems(result.answer, turn.answer_has)]


def _way_problems(
    way: Wanted, turn: OwnTurn, settable: set[str], old: Wanted, new: Wanted, wrong: str
) -> list[Problem]:
    values = {key: new.get(key) for key in way}
    found = [(wrong, f"{key} is {values[key]}") for key, value in way.items() if not is_same_value(value, values[key])]
    for key, (low, high) in turn.expect_range.items():
        value = new.get(key)
        if isinstance(value, bool | str) or value is None or not low <= value <= high:
            found.append((wrong, f"{key} is {value}"))
    named = {key.partition(".")[0] for key in (*way, *turn.expect_range)}
    others = [key for key in sorted(settable) if key.partition(".")[0] not in named]
    moved = [key for key in others if old.get(key) != new.get(key)]
    return found + [("moved something else", f"{key} became {new.get(key)}") for key in moved]


def _flat(state: State) -> Wanted:
    return {f"{device}.{key}": value for device, values in state.items() for key, value in values.items()}
