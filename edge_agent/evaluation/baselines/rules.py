"""What rules do without any model, as a baseline: Home Assistant's own sentences (edge_agent/agent/intents.py)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, cast

from devices.broker.runtime import SiteRuntime
from devices.site.describe import reports_text
from edge_agent.agent.agent import Agent, Controls
from edge_agent.agent.intents import IntentRecognizer
from edge_agent.agent.turn import ActionRecord, TurnResult
from edge_agent.engine.engine import Completion, Request, peak_resident_bytes
from edge_agent.evaluation.case_simulation import CaseSimulation

RULES = "rules"  # as a model's name: `rules`, or `rules:de`
NOT_UNDERSTOOD = "Sorry, I couldn't understand that."


@dataclass
class RulesAgent:
    """Does what the rules understand, through the broker; like Agent, but asks no model."""

    recognizer: IntentRecognizer
    broker: Controls
    prefix: str = ""

    def run(self, ask: str) -> Generator[Request, Completion, TurnResult]:
        """Work one request; a generator like Agent's, which never yields."""
        yield from ()
        outcomes = [self.broker.execute(command) for command in self.recognizer.commands(ask)]
        site = self.broker.site
        told = reports_text([(site.devices[one.command.device].title, one.report) for one in outcomes])
        actions = tuple(map(ActionRecord.of, outcomes))
        return TurnResult(ask, told or NOT_UNDERSTOOD, "", "", actions, (), (), "answer")


@dataclass
class RulesSimulation(CaseSimulation):
    """Agents of the rules, each in a world of its own; `intents` is their language."""

    def agent_in(self, runtime: SiteRuntime) -> Agent:
        """Return an agent that works devices by the rules."""
        assert self.recognizer is not None
        return cast(Agent, RulesAgent(self.recognizer, runtime.broker))


class NoEngine:
    """Stands where an engine does, for agents that ask none."""

    name = RULES

    def generate(self, requests: Any) -> list[Completion]:
        """Nothing ever asks."""
        assert not requests
        return []

    def prime(self, prefix: str) -> bool:
        """Nothing to do."""
        return not prefix

    def memory_bytes(self) -> int:
        """Return the peak memory of this process, in bytes."""
        return peak_resident_bytes()

    def accepts(self, grammar: Any, token_ids: Any) -> bool:
        """Nothing was made with or without a grammar."""
        return True

    def close(self) -> None:
        """Nothing to do."""
