"""What every engine does: turn a prompt into a reply. Implementations: llama_engine.py, finetune's Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from edge_agent.grammar import Grammar


@dataclass(frozen=True)
class Limits:
    """What a reply may cost."""

    reply_tokens: int = 160
    timeout_s: float | None = None


@dataclass(frozen=True)
class Request:
    """One reply to make. `prompt` is rendered text; without `grammar` the reply is free (evaluation only)."""

    prompt: str
    grammar: Grammar | None
    limits: Limits = Limits()


@dataclass(frozen=True)
class Completion:
    """A reply and what it cost. `text` has the wire format's markers and no end-of-turn token."""

    text: str
    token_ids: tuple[int, ...]
    stop_reason: Literal["end_of_turn", "length", "timeout"]
    prompt_tokens: int
    reused_tokens: int
    model_steps: int
    forced_tokens: int
    prefill_s: float
    decode_s: float


class Engine(Protocol):
    """An engine greedily completes prompts; a batch gives the same replies as one by one."""

    name: str

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Return one completion for each request, in order. Raises UnavailableError if the engine fails."""
        ...

    def prime(self, prefix: str) -> None:
        """Evaluate the static prefix now, so that later requests that start with it are quick."""
        ...

    def memory_bytes(self) -> int:
        """Return the peak memory of the engine's process (and of the GPU, if any), in bytes."""
        ...
