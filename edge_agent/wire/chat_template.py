"""Chat templates: the text around turns, rendered to the same bytes by Hugging Face, by llama.cpp and here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from devices.errors import RefusedError, UsageError
from edge_agent.wire.messages import Message, body_of

TEMPLATES_FOLDER = Path(__file__).parent / "templates"
END_OF_TURN = {
    "chatml": "<|im_end|>", "llama3": "<|eot_id|>", "mistral": "</s>", "phi3": "<|end|>", "gemma": "<end_of_turn>",
    "alpaca": "</s>",
}  # fmt: skip


class ContractChanged(RefusedError):
    """What would run is not what was trained."""


@dataclass(frozen=True)
class Segment:
    """A stretch of rendered text, and whether the loss sees it."""

    text: str
    is_trained: bool


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template's source, which Hugging Face and the box render to the same bytes."""

    name: str
    source: str
    end_of_turn: str

    @cached_property
    def _compiled(self) -> Any:
        # trim_blocks and lstrip_blocks as in transformers' _compile_jinja_template (utils/chat_template_utils.py)
        return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(self.source)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """Return the text of a conversation; with the generation prompt, ready for the assistant's reply."""
        plain = [{"role": message.role, "content": body_of(message)} for message in messages]
        return str(self._compiled.render(messages=plain, add_generation_prompt=add_generation_prompt))

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """Return the rendered conversation, cut where training starts and stops.

        Every assistant turn is trained from its first character to its end-of-turn token, unless it is marked as not to
        be; nothing else is.

        Raises:
            ContractChanged: the template is not append-only, so training and running would differ.
        """
        result, done = [], ""
        for count, message in enumerate(messages, start=1):
            if message.role != "assistant":
                continue
            head = self.render(messages[: count - 1], add_generation_prompt=True)
            whole = self.render(messages[:count], add_generation_prompt=False)
            reply = body_of(message) + self.end_of_turn
            if not head.startswith(done) or not whole.startswith(head + reply):
                raise ContractChanged(f"template {self.name} does not append turn {count} to what came before")
            result += [Segment(head[len(done) :], False), Segment(reply, message.is_trained)]
            done = head + reply
        rest = self.render(messages, add_generation_prompt=False)[len(done) :]
        return [*result, Segment(rest, False)] if rest else result


def load_template(name: str) -> ChatTemplate:
    """Return one of the templates that ship with Edgewright. Raises UsageError naming them if there is no such one.

    Families differ in what stands around a turn and in how it ends; what stands in it is the same (body_of). Those
    without a turn for results give them as the user's, headed `Results:` or, in Alpaca, `### Input:`. A text starts
    with the family's BOS token where it wants one; nothing else adds any.
    """
    if name not in END_OF_TURN:
        raise UsageError(f"no template is called {name!r}", hint=f"templates: {', '.join(END_OF_TURN)}")
    source = (TEMPLATES_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return ChatTemplate(name, source, END_OF_TURN[name])
