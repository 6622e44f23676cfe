"""Evaluation cases in simulated worlds, one world for each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from devices.simulation.world import World
from edge_agent.agent.simulation import Simulation
from edge_agent.agent.turn import TurnLimits
from edge_agent.evaluation.cases import Case
from edge_agent.evaluation.evaluation import Turn


@dataclass
class CaseSimulation(Simulation):
    """A simulation without a time limit: in a batch, a turn's clock also runs while it waits for the others."""

    limits: TurnLimits = field(default_factory=lambda: TurnLimits(timeout_s=math.inf))

    def start_turn(self, case: Case) -> tuple[Turn, World]:
        """Open the turn of an evaluation case in a world as the case has it."""
        hours, minutes = case.clock.split(":")
        world = World(self.site, case.state, time_s=int(hours) * 3600 + int(minutes) * 60)
        world.broken, world.stuck = set(case.broken), set(case.stuck)
        return self.agent(world, confirm=lambda effect: case.is_confirmed).run(case.ask), world
