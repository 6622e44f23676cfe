"""Conversations and evaluation cases: plans carried out by the real broker in a simulated world."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from devices.broker import Broker, Outcome
from devices.journal import Journal
from devices.simulator import SimulatedDriver, World
from devices.site import Site, Value
from devices.tools import Command, call_of, tools_of
from edge_agent.cases import Case
from edge_agent.wire import Message, contract_of, load_template, result_message, user_message
from finetune.exchanges import MAKERS
from finetune.rows import Row
from finetune.scene import Plan, Scene

EXCHANGES_PER_ROW = (1, 4)


def generate_rows(site: Site, count: int, seed: int) -> Iterator[Row]:
    """Yield conversations of one site, on the training side of the split; the same for the same seed."""
    rng = Random(f"rows-{seed}")
    system = Message("system", contract_of(site, load_template("chatml")).system_text)
    for _ in range(count):
        yield make_row(site, system, rng)


def make_row(site: Site, system: Message, rng: Random, exchanges: tuple[int, int] = EXCHANGES_PER_ROW) -> Row:
    """Return one conversation of several exchanges in one world, whose time goes on between them."""
    world = random_world(site, rng)
    messages, kinds = [system], []
    for _ in range(rng.randint(*exchanges)):
        plan = draw_plan(site, world, rng, held_out=False)
        messages += carry_out(plan, site, world)[0]
        kinds.append(plan.kind)
        world.advance(rng.choice([5, 60, 600, 3600]))
        if rng.random() < 0.3:
            world.state = random_world(site, rng).state
    return Row(tuple(kinds), tuple(messages))


def draw_plan(site: Site, world: World, rng: Random, *, held_out: bool) -> Plan:
    """Return a plan of a kind drawn by its weight, among those that the site and its state offer."""
    scene = Scene(site, world.snapshot(), rng, held_out)
    while True:
        kind = rng.choices(list(MAKERS), [weight for weight, _ in MAKERS.values()])[0]
        plan = MAKERS[kind][1](scene)
        if plan is not None:
            return plan


def random_world(site: Site, rng: Random) -> World:
    """Return a world in a random state at a random time of the day."""
    state: dict[str, dict[str, Value]] = {}
    for name, device in site.devices.items():
        state[name] = {}
        for key, schema in device.properties.items():
            low, high = schema.minimum or 0.0, schema.maximum or 0.0
            if schema.type == "boolean":
                state[name][key] = rng.random() < 0.5
            elif schema.enum:
                state[name][key] = rng.choice(schema.enum)
            elif schema.type == "integer":
                state[name][key] = int(rng.choice([low, high, rng.randint(int(low), int(high))]))
            elif schema.unit == "degrees" and low < 0:
                state[name][key] = round(rng.uniform(5, 30), 1)
            else:
                state[name][key] = float(rng.randint(int(low), int(high)))
        if "on" in state[name] and "brightness" in state[name]:  # a lamp that is off has no brightness
            bright = device.properties["brightness"]
            state[name]["brightness"] = (
                rng.randint(max(1, int(bright.minimum or 0)), int(bright.maximum or 1)) if state[name]["on"] else 0
            )
    return World(site, state, time_s=rng.randrange(24 * 60) * 60)


def carry_out(plan: Plan, site: Site, world: World) -> tuple[list[Message], list[Outcome]]:
    """Carry a plan out in the world; return the messages after the system turn, and the broker's outcomes.

    A sequence stops at the first command that is not done.
    """
    tools = tools_of(site)
    world.broken, world.stuck = set(plan.broken), set(plan.stuck)
    broker = Broker(
        site,
        SimulatedDriver(world),
        Journal(),
        clock=lambda: world.time_s,
        confirm=lambda effect: plan.is_confirmed,
    )
    messages = [user_message(plan.ask, broker.state(), world.clock)]
    outcomes: list[Outcome] = []
    thought, answer = plan.thought, plan.answer
    for step in plan.steps:
        done = [broker.execute(command) for command in step]
        outcomes += done
        messages.append(Message("assistant", "", thought, tuple(call_of(command, tools) for command in step)))
        messages.append(result_message([outcome.result for outcome in done]))
        thought = ", ".join(outcome.status for outcome in done)
        answer = " ".join(outcome.report for outcome in outcomes)
        if any(outcome.status != "done" for outcome in done):
            break
        thought += ", next " + _next_text(plan, len(outcomes)) if len(outcomes) < _total(plan) else ""
    messages.append(Message("assistant", answer, thought if not plan.steps else f"{thought}."))
    world.broken, world.stuck = set(), set()
    return messages, outcomes


def _total(plan: Plan) -> int:
    return sum(len(step) for step in plan.steps)


def _next_text(plan: Plan, done: int) -> str:
    command: Command = [command for step in plan.steps for command in step][done]
    values = " ".join(str(value) for value in command.input.values())
    return f"{command.device} {command.action} {values}".rstrip() + "."


def generate_cases(site: Site, count: int, seed: int) -> Iterator[Case]:
    """Yield held-out cases of one site: no phrasing template of theirs is in any training conversation."""
    rng = Random(f"cases-{seed}")
    for number in range(count):
        world = random_world(site, rng)
        plan = draw_plan(site, world, rng, held_out=True)
        before, clock = world.snapshot(), world.clock
        _, outcomes = carry_out(plan, site, world)
        yield Case(
            id=f"{site.name}-{seed}-{number:04d}",
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
