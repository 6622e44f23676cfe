"""Few-shot prompting: what an untuned model does with worked examples in its prompt, instead of training on them.

Source: Brown et al., "Language Models are Few-Shot Learners", arXiv:2005.14165.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from devices.json_lines import read_json_lines
from edge_agent.wire.contract import Contract
from edge_agent.wire.messages import Message, messages_of, request_of

SHOTS = 8


@dataclass(frozen=True)
class FewShot:
    """Where worked examples come from: conversations such as models are trained on, and how many."""

    path: Path
    count: int = SHOTS

    def messages(self, contract: Contract, held_out: Collection[str]) -> tuple[Message, ...]:
        """Return examples as turns, one of each kind of request before a second of any.

        Args:
            contract: whose system text the conversations must have.
            held_out: requests that no example may have.

        Raises:
            UsageError: the file cannot be read, is of another site, or has too few examples.
        """
        seen, known = {ask.casefold() for ask in held_out}, set[str]()
        first, others = list[list[Message]](), list[list[Message]]()
        for place, (kinds, (system, *turns)) in read_json_lines(self.path, _example, "conversation"):
            if system.text != contract.system_text:
                raise UsageError(f"{place}: an example of another site", hint="`edgewright data generate --site SITE`")
            if any(one.role == "user" and request_of(one.text).casefold() in seen for one in turns):
                continue
            (others if kinds in known else first).append(turns)
            known.add(kinds)
            if len(first) == self.count:
                break
        if len(found := [*first, *others][: self.count]) < self.count:
            raise UsageError(
                f"{self.path} has {len(found)} examples, not {self.count}", hint="--shots, or another file"
            )
        return tuple(message for turns in found for message in turns)


def _example(plain: dict[str, Any]) -> tuple[str, list[Message]]:
    """Return a conversation's kinds and turns. Raises ValueError, KeyError or TypeError if it is none."""
    if not (messages := messages_of(plain)):
        raise ValueError("no messages")
    return "+".join(plain.get("kinds", ())), messages
