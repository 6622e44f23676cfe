"""The agent loop: ask, think, propose calls, let the broker decide and act, answer from what was read back.

The loop itself has no engine: `turn` is a generator that yields a Request and is sent a Completion, so that
one engine call can serve many cases at once (evaluation) or one (the box).
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.engine import Completion
from edge_agent.wire import Reply, Unusable
from devices.site import Value


@dataclass(frozen=True)
class ActionRecord:
    """A proposed command and what came of it."""

    device: str
    action: str
    input: dict[str, Value]
    status: str  # done, refused, needs_confirmation, failed, unknown
    report: str  # the broker's own sentence, from the read-back


@dataclass(frozen=True)
class TurnResult:
    """What one request led to.

    `answer` is what the person sees: made from read-backs where something was proposed, else the model's.
    `model_answer` is the model's own last words ("" if it had none).
    """

    ask: str
    answer: str
    model_answer: str
    thought: str
    actions: tuple[ActionRecord, ...]
    replies: tuple[Reply, ...]
    completions: tuple[Completion, ...]
    stop_reason: str  # answer, unusable, step_limit, time_limit

    @property
    def is_usable(self) -> bool:
        """Whether every reply could be parsed and fitted the schemas."""
        return not any(isinstance(reply, Unusable) for reply in self.replies)
