"""Asking back before a call of which the model is not sure: "Did you mean that the porch light should be on?"

How sure it is, is the probability that it gave to its own reply (Completion.probability). Below the bundle's threshold
(evaluation/own/confidence.py measures it), or where the words of the request speak against it (caution.py), nothing is
called until a person says yes. What a person has to confirm anyway, what only reads, and what stops something does not
wait for that.

Does not guard against: a model that is sure and wrong, and answers without a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from devices.site.describe import wish_text
from devices.site.site import Site
from devices.site.tools import Command, action_of
from edge_agent.wire.parsing import ToolCalls

NAMED = 3  # of many wishes, how many are read out


@dataclass(frozen=True)
class Doubt:
    """A reply that waits for a yes, and the question."""

    reply: ToolCalls
    text: str

    @property
    def thought(self) -> str:
        """What is thought before it is asked."""
        return self.reply.thought

    def choices(self, site: Site) -> tuple[str, ...]:
        """Return the short answers."""
        del site
        return ("Yes", "No")


def doubt_about(site: Site, reply: ToolCalls, commands: Sequence[Command]) -> Doubt | None:
    """Return what to ask before a reply's commands are carried out; None if nothing needs to be."""
    named = [(*action_of(site, one), one.input) for one in commands]
    waiting = [one for one in named if one[1].risk not in ("none", "confirm") and not one[1].safe]
    if not waiting:
        return None
    wishes = [wish_text(*one) for one in waiting]
    if len(wishes) > NAMED:
        wishes[NAMED - 1 :] = [f"{len(wishes) - NAMED + 1} things more"]
    told = " and ".join([", ".join(wishes[:-1]), wishes[-1]] if len(wishes) > 1 else wishes)
    return Doubt(reply, f"Did you mean this: {told}?")
