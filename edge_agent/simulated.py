"""An agent in a simulated world: for evaluation, for trying a bundle out, and for the demo."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from devices.broker import Broker
from devices.place import simulated_broker
from devices.simulator import World
from devices.site import Site
from edge_agent.agent import Agent, TurnLimits
from edge_agent.cases import Case
from edge_agent.engine import CONTEXT_TOKENS
from edge_agent.evaluation import Turn
from edge_agent.grammar import reply_grammar
from edge_agent.grammar_text import Grammar
from edge_agent.wire import ChatTemplate, Contract, contract_of, user_message

STATES, ROOM_TOKENS, CONTEXT_STEP = 2, 1024, 512  # the state of two turns, and what is said in them


@dataclass
class Simulation:
    """Makes agents for one site, each in a world of its own.

    Args:
        site: devices, policy and the rules of the world.
        template: the model's chat template.
        limits: of each turn.
    """

    site: Site
    template: ChatTemplate
    limits: TurnLimits = field(default_factory=TurnLimits)

    def __post_init__(self) -> None:
        self.contract: Contract = contract_of(self.site, self.template)
        self.grammar: Grammar = reply_grammar(self.contract.tools)

    @property
    def context_tokens(self) -> int:
        """The room that prompts of this site need, in any vocabulary: their tokens have two bytes and more."""
        state = user_message("", World(self.site).snapshot(), "00:00").text
        needed = len(self.contract.system_text.encode()) // 2 + STATES * len(state.encode()) // 2 + ROOM_TOKENS
        return max(CONTEXT_TOKENS, -(-needed // CONTEXT_STEP) * CONTEXT_STEP)

    def agent(self, world: World, confirm: Callable[[str], bool] | None = None) -> Agent:
        """Return an agent that works the devices of a world through a broker of its own."""
        return self.agent_with(simulated_broker(world, confirm=confirm), lambda: world.clock)

    def agent_with(self, broker: Broker, clock_text: Callable[[], str]) -> Agent:
        """Return an agent that works through a broker, on whatever devices that has."""
        return Agent(self.contract, broker, self.grammar, clock_text=clock_text, limits=self.limits)

    def start_turn(self, case: Case) -> tuple[Turn, World]:
        """Open the turn of an evaluation case in a world as the case has it."""
        hours, minutes = case.clock.split(":")
        world = World(self.site, case.state, time_s=int(hours) * 3600 + int(minutes) * 60)
        world.broken, world.stuck = set(case.broken), set(case.stuck)
        return self.agent(world, confirm=lambda effect: case.is_confirmed).turn(case.ask), world


def evaluation_simulation(site: Site, template: ChatTemplate) -> Simulation:
    """Return a simulation without a time limit: in a batch a turn's clock also runs while it waits for the others."""
    return Simulation(site, template, TurnLimits(timeout_s=math.inf))
