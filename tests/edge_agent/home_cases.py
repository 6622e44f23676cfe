"""Cases of the home site and an engine that replies to them by script. For tests only: these are no results."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from devices.broker.broker import Broker
from devices.broker.runtime import simulated_runtime
from devices.simulation.world import World
from devices.site.site import load_site
from devices.site.tools import Command, call_of
from edge_agent.agent.agent import Agent
from edge_agent.agent.turn import TurnLimits
from edge_agent.engine.engine import Completion, Request
from edge_agent.evaluation.cases import Case, State
from edge_agent.evaluation.evaluation import Turn
from edge_agent.grammar.grammar import Grammar
from edge_agent.grammar.reply_grammar import reply_grammar
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from edge_agent.wire.messages import Message, body_of
from edge_agent.wire.parsing import Unusable, parse_reply

SITE = load_site("home")
CONTRACT = contract_of(SITE, load_template("chatml"))
TOOLS = list(CONTRACT.tools)
GRAMMAR = reply_grammar(TOOLS)


def open_world(state: State, broken: Sequence[str] = (), is_confirmed: bool = False) -> tuple[World, Broker]:
    world = World(SITE, state)
    world.broken |= set(broken)
    return world, simulated_runtime(world, confirm=lambda _: is_confirmed).broker


def make_case(
    case_id: str,
    kind: str,
    ask: str,
    *commands: Command,
    state: State | None = None,
    in_order: bool = True,
    is_confirmed: bool = False,
    broken: tuple[str, ...] = (),
    answer_has: tuple[tuple[str, ...], ...] = (),
) -> Case:
    """A case whose statuses and final state come from the real broker."""
    world, broker = open_world(state or {}, broken, is_confirmed)
    before = world.snapshot()
    statuses = tuple(broker.execute(command).status for command in commands)
    return Case(
        case_id, kind, ask, before, "08:00", broken, is_confirmed, commands, in_order, statuses,
        world.snapshot(), answer_has,
    )  # fmt: skip


def start_turn(case: Case) -> tuple[Turn, World]:
    world, broker = open_world(case.state, case.broken, case.is_confirmed)
    limits = TurnLimits(timeout_s=math.inf)
    agent = Agent(CONTRACT, broker, GRAMMAR, clock_text=lambda: case.clock, limits=limits)
    return agent.run(case.ask), world


def call_text(thought: str, *commands: Command) -> str:
    return body_of(Message("assistant", "", thought, tuple(call_of(command, TOOLS) for command in commands)))


def answer_text(thought: str, text: str) -> str:
    return body_of(Message("assistant", text, thought))


def right_replies(case: Case) -> tuple[str, ...]:
    """What a perfect model says."""
    if not case.commands:
        words = " ".join(alternatives[0] for alternatives in case.answer_has)
        return (answer_text("Nothing to do.", f"Here is what I know: {words or 'no.'}"),)
    return call_text("The request names the device.", *case.commands), answer_text("It is done.", "Done.")


@dataclass
class CaseEngine:
    """Replies by request and step; free requests take theirs from `free` where it has the ask.

    Strict: an ask or a step without a reply fails the test. Its tokens are the bytes of the text.
    """

    replies: dict[str, tuple[str, ...]]
    free: dict[str, tuple[str, ...]] = field(default_factory=dict)
    name: str = "scripted"
    batches: list[list[str]] = field(default_factory=list)
    is_accepting: bool = True
    overruled: frozenset[str] = frozenset()  # asks whose constrained replies the grammar changed

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.batches.append([self._ask(request) for request in requests])
        return [self._complete(request) for request in requests]

    def _ask(self, request: Request) -> str:
        turns = request.prompt.split("<|im_start|>user\n")
        assert len(turns) == 2
        shown = turns[1].split("\nRequest: ")[1].split("<|im_end|>")[0]
        return re.sub(r" \(\d+ seconds\)", "", shown)

    def _complete(self, request: Request) -> Completion:
        ask, step = self._ask(request), request.prompt.count("<|im_start|>tool\n")
        script = self.free.get(ask, self.replies[ask]) if request.grammar is None else self.replies[ask]
        text = script[step]
        tokens = tuple(text.encode())
        overruled = int(ask in self.overruled and request.grammar is not None)
        return Completion(text, tokens, "end_of_turn", 500, 480, len(tokens) - 4, 4, overruled, (), 0.02, 0.1)

    def accepts(self, grammar: Grammar, token_ids: Sequence[int]) -> bool:
        assert grammar.lark == GRAMMAR.lark
        return self.is_accepting and not isinstance(parse_reply(bytes(token_ids).decode(), TOOLS), Unusable)

    def prime(self, prefix: str) -> bool:
        del prefix
        return False

    def memory_bytes(self) -> int:
        return 300 * 2**20


LIGHT_ON = Command("kitchen_light", "on", {})
LAMP_40 = Command("bedroom_lamp", "brightness", {"brightness": 40})


def home_cases() -> list[Case]:
    """A few cases of each kind."""
    return [
        make_case("call-1", "call", "turn on the kitchen light", LIGHT_ON),
        make_case("call-2", "call", "dim the bedroom lamp to 40", LAMP_40),
        make_case("call-3", "call", "switch the workshop outlet on", Command("workshop_outlet", "on", {})),
        make_case("two-1", "two_calls", "kitchen light on with bedroom lamp to 40", LIGHT_ON, LAMP_40, in_order=False),
        make_case("ask-1", "state_question", "is the front door locked?", answer_has=(("locked",),)),
        make_case("range-1", "out_of_range", "set the bathroom fan to 9", answer_has=(("3", "three"),)),
        make_case("confirm-1", "confirmation", "unlock the front door", Command("front_door", "unlock", {})),
        make_case("lock-1", "interlock", "water the garden for 5 minutes",
                  Command("garden_sprinkler", "water", {"minutes": 5}),
                  state={"garden_soil": {"moisture_pct": 80.0}}),
        make_case("broken-1", "broken", "turn the porch light on", Command("porch_light", "on", {}),
                  broken=("porch_light",)),
    ]  # fmt: skip


def perfect_engine(cases: Sequence[Case]) -> CaseEngine:
    return CaseEngine({case.ask: right_replies(case) for case in cases})
