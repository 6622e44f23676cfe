"""Conversations and evaluation cases: plans carried out by the real broker in a simulated world."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from random import Random

from devices.broker.broker import Outcome
from devices.broker.journal import Journal
from devices.broker.runtime import simulated_runtime
from devices.errors import UsageError
from devices.simulation.world import World
from devices.site.action import UNLESS_0, Action
from devices.site.device import Device
from devices.site.phrasings import load_phrasings
from devices.site.schema import DataSchema, Value
from devices.site.site import Site
from devices.site.tools import Command, Tool, call_of, commands_of
from edge_agent.evaluation.cases import CASES, CASES_SEED, Case
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from edge_agent.wire.markers import THEN
from edge_agent.wire.messages import DONE, NOT_DONE, Message, result_message, result_of, user_message
from edge_agent.wire.spelling import SiteWords
from finetune.data.held_out import content_of
from finetune.data.leakage import without_leaks
from finetune.data.people.asks import Asks
from finetune.data.people.follow_ups import draw_follow_up
from finetune.data.people.spoken_before import Before
from finetune.data.plan_kinds import ALL_MAKERS, PEOPLE_MAKERS, WISHES, usual_weights
from finetune.data.random_sites import FromOneState, Sites, random_site, with_near_names
from finetune.data.rows import Row
from finetune.data.scene import Plan, Scene
from finetune.data.tool_variety import Variety

USUAL_SHARE = 0.7
EXCHANGES_PER_ROW = (1, 4)
BESIDE_ASKS = {  # weights beside people's words: they ask otherwise, and their base can copy
    "call": 0.4,  # one request in three is one plain wish; the rest shall not crowd it out
    "value": 0.2,
    "several": 0.3,
    "recital": 0.03,
    "question": 0.06,
    "unsupported": 0.01,  # `unable` has more, and doors that can be locked must not be taken for those that cannot
    "confirmation": 0.12,
    "bit": 0.0,  # `relative` has it
    "small_talk": 0.0,  # `chitchat` has it
}
WITH_ASKS = FromOneState(long_rows=2, cut_share=0.7)  # of a site's rows in people's words
FOLLOW_UP_SHARE = 0.7  # of the exchanges after another, in people's words
BRANCHES, LONG_ROWS = 48, 2  # of a site's rows: of one exchange each from one state, and after them of several
SPOKEN_OF_SHARE = 0.75  # of conversations in people's words begin with what is easily spoken of again
SPOKEN_OF = {  # its kinds, with their weights
    "call": 0.3, "value": 0.2, "relative": 0.1, "many": 0.16, "asked_question": 0.2, "recital": 0.04,
    "confirmation": 0.05,
}  # fmt: skip
DRAWS = 1000  # of a kind, before it is given up that the site offers one


def generate_rows(
    site: Site,
    count: int,
    seed: int,
    variety: Variety | None = None,
    kinds: Mapping[str, float] | None = None,
    asks: Asks | None = None,
) -> Iterator[Row]:
    """Yield conversations of one site, on the training side of the split; the same for the same seed.

    Those that start in one state follow each other, so that training evaluates their start once.

    Args:
        site: where they are held.
        count: how many.
        seed: decides all.
        variety: how many start where the tools are others; none if left out.
        kinds: weights of kinds of exchanges (plan_kinds.py) that are not to be the usual ones.
        asks: the corpus of requests in people's words, if they are to be among them; then one row in eight is of
            several exchanges, which refer to each other.

    Raises:
        UsageError: with these weights nothing can be drawn.
    """
    rows = _rows_without_end(site, seed, variety, kinds, asks)
    if asks:  # people say by chance what a held-out phrasing says
        rows = without_leaks(rows, generate_cases(site, CASES, CASES_SEED), site)
    yield from islice(rows, count)


def _rows_without_end(
    site: Site, seed: int, variety: Variety | None, kinds: Mapping[str, float] | None, asks: Asks | None
) -> Iterator[Row]:
    rng = Random(f"rows-{seed}")
    plain = Stage.of(site, kinds, asks)
    while True:
        varied = variety.vary(site, rng) if variety else site
        stage = plain if varied is site else Stage.of(varied, kinds, asks)
        if asks:
            rows = _from_one_state(stage, rng, random_world(varied, rng), WITH_ASKS)
        else:
            rows = make_branches(stage, rng, BRANCHES) + [make_row(stage, rng) for _ in range(LONG_ROWS)]
        yield from (replace(row, is_varied=stage is not plain) for row in rows)


def generate_any_site(rows: int, seed: int, wanted: Sites, asks: Asks | None = None) -> Iterator[Row]:
    """Yield conversations of random sites, those of one site after another; the same for the same seed.

    All of a site start in one state, so that training evaluates their start once.

    Args:
        rows: how many.
        seed: decides all.
        wanted: what the sites are like.
        asks: the corpus of requests in people's words, if they are to be among them.
    """
    rng = Random(f"sites-{seed}")
    while rows > 0:
        site = with_near_names(random_site(rng, wanted.devices, wanted.weights, wanted.other_names), rng, strange=False)
        stage, world = Stage.of(site, None, asks), random_world(site, rng)
        found = _from_one_state(stage, rng, world, wanted)
        yield from found[:rows]
        rows -= len(found)


def _from_one_state(stage: Stage, rng: Random, world: World, wanted: FromOneState) -> list[Row]:
    """Return conversations that start in one state: of one exchange each, then of several."""
    found = [
        _until_call(row) if rng.random() < wanted.cut_share else row
        for row in _branches(stage, rng, world, wanted.rows - wanted.long_rows)
    ]
    for _ in range(wanted.long_rows):
        start = World(stage.site, world.snapshot(), world.time_s)
        found.append(make_row(stage, rng, wanted.exchanges, start))
    return found


def _until_call(row: Row) -> Row:
    """Return a row that ends with its first call; one without a call is returned as it is."""
    calls = (number for number, message in enumerate(row.messages, start=1) if message.calls)
    return replace(row, messages=row.messages[: next(calls, None)])


@dataclass(frozen=True)
class Stage:
    """A site with what all its conversations share: tools, words, the system turn, and the weight of each kind."""

    site: Site
    tools: tuple[Tool, ...]
    words: SiteWords | None
    system: Message
    weights: dict[str, float]
    asks: Asks | None = None

    @classmethod
    def of(cls, site: Site, kinds: Mapping[str, float] | None = None, asks: Asks | None = None) -> Stage:
        """Return the stage that a site makes, with the usual weights but for those given."""
        contract = contract_of(site, load_template("chatml"))
        weights = usual_weights(site)
        if asks:
            weights |= {kind: weight for kind, (weight, _) in PEOPLE_MAKERS.items()}
            weights |= BESIDE_ASKS
        weights |= dict(kinds or {})
        return cls(site, contract.tools, contract.words, Message("system", contract.system_text), weights, asks)


def make_row(
    stage: Stage, rng: Random, exchanges: tuple[int, int] = EXCHANGES_PER_ROW, world: World | None = None
) -> Row:
    """Return one conversation of several exchanges in one world, whose time goes on between them."""
    world, journal = world or random_world(stage.site, rng), Journal()
    messages, kinds = [stage.system], list[str]()
    before: Before | None = None
    for _ in range(rng.randint(*exchanges)):
        plan = _follow_up(stage, world, rng, before) or _opening(stage, world, rng, is_first=not kinds)
        state = world.snapshot()
        said, outcomes = carry_out(plan, stage, world, journal)
        messages += said
        kinds.append(plan.kind)
        if stage.asks and rng.random() < FOLLOW_UP_SHARE:
            if before is None or plan.kind != "small_talk":  # thanks do not change what "it" is
                done = tuple(outcome.command for outcome in outcomes if outcome.status == "done")
                before = Before(plan, done, state)
            continue
        before = None
        simulated_runtime(world, journal).advance(rng.choice([5, 60, 600, 3600]))
        if rng.random() < 0.3:
            world.state = random_world(stage.site, rng).state
    return Row(tuple(kinds), tuple(messages))


def _follow_up(stage: Stage, world: World, rng: Random, before: Before | None) -> Plan | None:
    """Return a plan that refers to the exchange before, or None if nothing can."""
    scene = Scene(stage.site, stage.tools, world.snapshot(), rng, False, stage.asks)
    plan = draw_follow_up(scene, before) if before else None
    return plan and with_wish(plan)


def _opening(stage: Stage, world: World, rng: Random, *, is_first: bool) -> Plan:
    """Return a plan that refers to nothing; the first of people's words most often does what can be referred to."""
    if not stage.asks or not is_first or rng.random() > SPOKEN_OF_SHARE:
        return draw_plan(stage, world, rng, held_out=False)
    return draw_plan(replace(stage, weights=SPOKEN_OF), world, rng, held_out=False)


def with_wish(plan: Plan) -> Plan:
    """Return a plan whose thought names the wish first, where its maker does not."""
    return replace(plan, thought=f"{WISHES[plan.kind]}: {plan.thought}") if plan.kind in WISHES else plan


def make_branches(stage: Stage, rng: Random, count: int) -> list[Row]:
    """Return conversations of one exchange each that start in one and the same state of one world."""
    return _branches(stage, rng, random_world(stage.site, rng), count)


def _branches(stage: Stage, rng: Random, world: World, count: int) -> list[Row]:
    rows: list[Row] = []
    while len(rows) < count:
        plan = draw_plan(stage, world, rng, held_out=False)
        if not plan.broken:  # a device that does not answer shows in the state
            copy = World(stage.site, world.snapshot(), world.time_s)
            rows.append(Row((plan.kind,), (stage.system, *carry_out(plan, stage, copy)[0])))
    return rows


def draw_plan(stage: Stage, world: World, rng: Random, *, held_out: bool) -> Plan:
    """Return a plan of a kind drawn by its weight, among those that the site and its state offer."""
    scene = Scene(stage.site, stage.tools, world.snapshot(), rng, held_out, stage.asks)
    if any(stage.weights.values()):
        for _ in range(DRAWS):
            kind = rng.choices(list(stage.weights), list(stage.weights.values()))[0]
            plan = ALL_MAKERS[kind][1](scene)
            if plan is not None and not (stage.asks and content_of(plan.ask) in stage.asks.held_out):
                return with_wish(plan) if stage.asks else plan
    wanted = [kind for kind, weight in stage.weights.items() if weight]
    raise UsageError(
        f"site {stage.site.name} offers no exchange of these kinds: {', '.join(wanted) or 'none is wanted'}"
    )


def random_world(site: Site, rng: Random) -> World:
    """Return a world in a random state at a random time of the day."""
    state: dict[str, dict[str, Value]] = {}
    for name, device in site.devices.items():
        state[name] = {}
        for key, schema in device.properties.items():
            low, high = schema.minimum or 0.0, schema.maximum or 0.0
            if schema.type == "boolean":
                state[name][key] = rng.random() < 0.5
            elif schema.enum:  # most often as it usually is, or nothing could ever be done
                usual = device.initial.get(key, schema.enum[0])
                state[name][key] = usual if rng.random() < USUAL_SHARE else rng.choice(schema.enum)
            elif schema.type == "integer":
                state[name][key] = int(rng.choice([low, high, rng.randint(int(low), int(high))]))
            elif usual_range := _usual_range(schema):
                state[name][key] = round(rng.uniform(*usual_range), 1)
            else:
                state[name][key] = float(rng.randint(int(low), int(high)))
        for switched, level, is_kept in _switched_levels(device):
            schema = device.properties[level]
            least, most = max(1, int(schema.minimum or 0)), int(schema.maximum or 1)
            state[name][level] = rng.randint(least, most) if state[name][switched] or is_kept else 0
        for action in device.actions.values():
            _put_in_order(state[name], action)
    return World(site, state, time_s=rng.randrange(24 * 60) * 60)


def _put_in_order(state: dict[str, Value], action: Action) -> None:
    """Make the properties of arguments that must increase do so, as a device keeps them."""
    names = [name for argument in action.increasing for name, value in action.writes.items() if value == f"${argument}"]
    values = sorted((state[name] for name in names), key=float)
    state.update(zip(names, values, strict=True))


def _usual_range(schema: DataSchema) -> tuple[int, int] | None:
    """Return where a number of its unit is most often, if its range is much wider: no garden has 60 degrees."""
    usual = load_phrasings().readings.get(schema.unit)
    if usual is None or schema.minimum is None or schema.maximum is None:
        return None
    is_inside = schema.minimum <= usual[0] and usual[1] <= schema.maximum
    return usual if is_inside and schema.maximum - schema.minimum > 2 * (usual[1] - usual[0]) else None


def _switched_levels(device: Device) -> list[tuple[str, str, bool]]:
    """Return booleans that are true if a number is above 0, with it, and whether it keeps its value while off."""
    return [
        (switched, level, str(other).endswith(UNLESS_0))
        for action in device.actions.values()
        for switched, value in action.writes.items()
        for level, other in action.writes.items()
        if value == f"{str(other).removesuffix(UNLESS_0).rstrip()} > 0"
    ]


def carry_out(
    plan: Plan, stage: Stage, world: World, journal: Journal | None = None
) -> tuple[list[Message], list[Outcome]]:
    """Carry a plan out in the world; return the messages after the system turn, and the broker's outcomes.

    A sequence stops at the first command that is not done. The assistant's last words say only whether all was done:
    the person hears the broker's report.
    """
    world.broken, world.stuck = set(plan.broken), set(plan.stuck)
    broker = simulated_runtime(world, journal, lambda effect: plan.is_confirmed).broker
    messages = [user_message(plan.ask, broker.state(), world.clock, stage.words)]
    outcomes: list[Outcome] = []
    thought, answer = plan.thought, plan.answer
    for number, step in enumerate(plan.steps):
        calls = tuple(call_of(one, stage.tools) if isinstance(one, Command) else one for one in step)
        results = []
        for call in calls:
            commands = commands_of(call, stage.tools)
            assert not isinstance(commands, str), commands
            done = [broker.execute(command) for command in commands]
            outcomes += done
            results.append(result_of([outcome.result for outcome in done]))
        messages.append(Message("assistant", "", thought, calls))
        messages.append(result_message(results))
        statuses = ", ".join(str(result["status"]) for result in results)
        is_done = all(result["status"] == "done" for result in results)
        thought, answer = f"{statuses}.", DONE if is_done else NOT_DONE
        if not is_done:
            break
        if number + 1 < len(plan.steps):
            thought = THEN.join([statuses, *plan.thought.split(THEN)[number + 1 :]])
    messages.append(Message("assistant", answer, thought))
    world.broken, world.stuck = set(), set()
    if plan.then:
        later, done = carry_out(plan.then, stage, world, journal)
        return messages + later, outcomes + done
    return messages, outcomes


def generate_cases(site: Site, count: int, seed: int) -> Iterator[Case]:
    """Yield held-out cases of one site: no phrasing template of theirs is in any training conversation."""
    for case, _ in generate_reference(site, count, seed):
        yield case


def generate_reference(site: Site, count: int, seed: int) -> Iterator[tuple[Case, tuple[Message, ...]]]:
    """Yield the held-out cases of `generate_cases`, each with the conversation that does it right."""
    yield from _cases(site, count, f"cases-{seed}", f"{site.name}-{seed}", held_out=True)


def generate_practice(site: Site, count: int, seed: int) -> Iterator[tuple[Case, tuple[Message, ...]]]:
    """Yield cases of one site on the training side of the split, each with the conversation that does it right."""
    yield from _cases(site, count, f"practice-{seed}", f"{site.name}-practice-{seed}", held_out=False)


def _cases(
    site: Site, count: int, chance: str, name: str, *, held_out: bool
) -> Iterator[tuple[Case, tuple[Message, ...]]]:
    rng = Random(chance)
    stage = Stage.of(site)
    for number in range(count):
        world = random_world(site, rng)
        plan = replace(draw_plan(stage, world, rng, held_out=held_out), then=None)  # a case is one request
        before, clock = world.snapshot(), world.clock
        messages, outcomes = carry_out(plan, stage, world)
        case = Case(
            id=f"{name}-{number:04d}",
            kind=plan.kind,
            ask=plan.ask,
            state=before,
            clock=clock,
            broken=plan.broken,
            stuck=plan.stuck,
            is_confirmed=plan.is_confirmed,
            commands=tuple(outcome.command for outcome in outcomes),
            in_order=plan.kind == "in_order",
            statuses=tuple(outcome.status for outcome in outcomes),
            state_after=world.snapshot(),
            answer_has=plan.answer_has,
        )
        yield case, (stage.system, *messages)
