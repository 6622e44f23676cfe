"""An agent in a simulated world: for evaluation, for trying a bundle out, and for the demo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from devices.broker.runtime import Confirm, SiteRuntime, simulated_runtime
from devices.simulation.world import World
from devices.site.site import Site
from edge_agent.agent.agent import Agent
from edge_agent.agent.intents import IntentRecognizer
from edge_agent.agent.turn import TurnLimits
from edge_agent.engine.engine import CONTEXT_TOKENS
from edge_agent.grammar.grammar import Grammar
from edge_agent.grammar.reply_grammar import reply_grammar
from edge_agent.wire.chat_template import ChatTemplate
from edge_agent.wire.contract import Contract, contract_of
from edge_agent.wire.messages import Message, body_of, user_message

STATES, ROOM_TOKENS, CONTEXT_STEP = 2, 1024, 512  # the state of two turns, and what is said in them


@dataclass
class Simulation:
    """Makes agents for one site, each in a world of its own.

    Args:
        site: devices, policy and the rules of the world.
        template: the model's chat template.
        limits: of each turn.
        ask_below: how probable a call must be to the model to be carried out without a yes (Agent).
        intents: language of Home Assistant's sentences, which are looked for before the model is asked; "" for none.
        shots: worked examples in every prompt (Agent).
    """

    site: Site
    template: ChatTemplate
    limits: TurnLimits = field(default_factory=TurnLimits)
    ask_below: float | None = None
    intents: str = ""
    shots: Sequence[Message] = ()

    def __post_init__(self) -> None:
        self.recognizer = IntentRecognizer(self.site, self.intents) if self.intents else None
        self.contract: Contract = contract_of(self.site, self.template)
        self.grammar: Grammar = reply_grammar(self.contract.tools)

    @property
    def context_tokens(self) -> int:
        """The room that prompts of this site need, in any vocabulary: their tokens have two bytes and more."""
        state = user_message("", World(self.site).snapshot(), "00:00", self.contract.words).text
        fixed = len(self.contract.system_text.encode()) + sum(len(body_of(one).encode()) for one in self.shots)
        needed = fixed // 2 + STATES * len(state.encode()) // 2 + ROOM_TOKENS
        return max(CONTEXT_TOKENS, in_context_steps(needed))

    def agent(self, world: World, confirm: Confirm | None = None) -> Agent:
        """Return an agent that works the devices of a world through a broker of its own."""
        return self.agent_in(simulated_runtime(world, confirm=confirm))

    def agent_in(self, runtime: SiteRuntime) -> Agent:
        """Return an agent that works devices, simulated or real."""
        return Agent(
            self.contract,
            runtime.broker,
            self.grammar,
            clock_text=lambda: runtime.clock_text,
            limits=self.limits,
            ask_below=self.ask_below,
            recognizer=self.recognizer,
            shots=self.shots,
        )


def in_context_steps(tokens: int) -> int:
    """Return the room for so many tokens, in whole steps."""
    return -(-tokens // CONTEXT_STEP) * CONTEXT_STEP
