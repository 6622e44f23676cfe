"""What every engine does: turn a prompt into a reply. Implementations: llama_cpp_engine.py, finetune's Hugging Face."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from devices.errors import UsageError
from edge_agent.grammar.grammar import Grammar

CONTEXT_TOKENS = 2048  # of an engine that is not told how many it needs
StopReason = Literal["end_of_turn", "length", "timeout"]


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
    """A reply and what it cost.

    Attributes:
        text: the reply with the wire format's markers and without the end-of-turn token.
        token_ids: its tokens, also without the end-of-turn token.
        stop_reason: what ended it; after "length" and "timeout" the text may stop anywhere.
        prompt_tokens: length of the prompt.
        reused_tokens: how many of them were not evaluated again, because an earlier prompt began with them too.
        model_steps: how often the model was asked for the next token.
        forced_tokens: tokens that the grammar left no choice about.
        overruled_tokens: how often the grammar, by a choice it left or by what it forced, did not let the model say
            what it would have said, as decoding_loop.py counts it; the reply is then the grammar's as much as the
            model's, and nothing should be moved because of it. How a reply ends that was cut was not all asked about.
        log_probabilities: of each token that the model was asked for, the end of the turn among them, the natural
            logarithm of its probability among all tokens; forced ones have none.
        prefill_s: time until the first logits.
        decode_s: time from there to the end.
    """

    text: str
    token_ids: tuple[int, ...]
    stop_reason: StopReason
    prompt_tokens: int
    reused_tokens: int
    model_steps: int
    forced_tokens: int
    overruled_tokens: int
    log_probabilities: tuple[float, ...]
    prefill_s: float
    decode_s: float

    @property
    def probability(self) -> float:
        """How probable the reply was to the model, of all that the grammar left it: 0 to 1."""
        return math.exp(sum(self.log_probabilities))


class Engine(Protocol):
    """An engine greedily completes prompts; a batch gives the same replies as one by one."""

    name: str

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Return one completion for each request, in order. Raises UnavailableError if the engine fails."""
        ...

    def prime(self, prefix: str) -> bool:
        """Evaluate the static prefix now, so that later requests that start with it are quick.

        Returns:
            Whether its state was cached at an earlier start.
        """
        ...

    def memory_bytes(self) -> int:
        """Return the peak memory of the engine's process (and of the GPU, if any), in bytes."""
        ...


def common_length(first: Sequence[object], second: Sequence[object]) -> int:
    """Return how many items two sequences have in common at their start."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return min(len(first), len(second))


class ContextFull(UsageError):
    """Prompt and reply do not fit the engine's context."""


def require_room(prompt_tokens: int, limits: Limits, context_tokens: int) -> None:
    """Raise ContextFull unless prompt and reply fit the context, so that no reply is ever cut by a full context."""
    if prompt_tokens == 0:
        raise UsageError("the prompt is empty")
    if prompt_tokens + limits.reply_tokens > context_tokens:
        raise ContextFull(
            f"the prompt has {prompt_tokens} tokens and the reply may have {limits.reply_tokens}, "
            f"but the context holds {context_tokens}",
            hint="give the engine a larger context, or the site fewer devices",
        )


def peak_resident_bytes() -> int:
    """Return the largest resident memory this process had, in bytes.

    Source: proc_pid_status(5), VmHWM. ru_maxrss is no substitute on Linux: a child starts with its parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
