"""The model's reply as OpenAI's chat completions have it, whole or as it comes. A thought is `reasoning_content`.

A call is sent when it is whole: what is sent always fits its tool's schema.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from devices.errors import UnavailableError
from devices.site.tools import ToolCall
from edge_agent.engine.engine import Completion
from edge_agent.serving.http.chat_request import ChatRequest
from edge_agent.wire.markers import CALL, END_THINK, THINK
from edge_agent.wire.parsing import Answer, ToolCalls, parse_reply


class ChatReply:
    """One reply. Feed it the text so far with `more`, and the completion with `end`; both give OpenAI's deltas.

    Args:
        asked: what was asked.
        model: the id that the client named.
    """

    def __init__(self, asked: ChatRequest, model: str) -> None:
        self._asked = asked
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._sent = {"reasoning_content": "", "content": ""}
        self.has_stopped = False  # at one of the texts before which it should

    def more(self, text: str) -> Iterator[dict[str, Any]]:
        """Yield what is new in the text so far."""
        if len(text) < len(THINK):
            return
        thought, ended, answer = text.removeprefix(THINK).partition(END_THINK)
        yield from self._new("reasoning_content", thought.partition("<")[0].strip())  # what begins so is a marker
        if ended and not answer.startswith(CALL[: len(answer)] if len(answer) < len(CALL) else CALL):
            answer = self._cut(answer)
            yield from self._new("content", answer if self.has_stopped else answer[: -self._longest_stop or None])

    def end(self, completion: Completion) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the deltas that are left, and the whole message.

        Raises:
            UnavailableError: the time was over before the reply was whole.
        """
        reply = parse_reply(completion.text, self._asked.tools)
        deltas = list(self.more(completion.text))
        message: dict[str, Any] = {"role": "assistant", "content": None}
        if isinstance(reply, ToolCalls) and completion.stop_reason == "end_of_turn":
            calls = [_plain_call(one) for one in reply.calls]
            message |= {"tool_calls": calls, "reasoning_content": reply.thought}
            deltas.append({"tool_calls": [one | {"index": index} for index, one in enumerate(calls)]})
        else:
            if completion.stop_reason == "timeout" and not self.has_stopped:
                raise UnavailableError("the reply took too long")
            thought, _, rest = completion.text.removeprefix(THINK).partition(END_THINK)
            answer = self._cut(reply.text if isinstance(reply, Answer) else rest if not rest.startswith(CALL) else "")
            message |= {"content": answer, "reasoning_content": thought.strip()}
            deltas += self._new("content", answer)
        return deltas, message

    def finish_reason(self, completion: Completion, message: dict[str, Any]) -> str:
        """Return why it ended, as OpenAI says it."""
        if "tool_calls" in message:
            return "tool_calls"
        return "stop" if completion.stop_reason == "end_of_turn" or self.has_stopped else "length"

    def whole(self, completion: Completion) -> dict[str, Any]:
        """Return the body of an answer that is not streamed. Raises as `end`."""
        _, message = self.end(completion)
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason(completion, message)}
        return (
            self._head
            | {"object": "chat.completion", "choices": [choice | {"logprobs": None}], "usage": usage_of([completion])}
            | self.more_facts(completion)
        )

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """Return a streamed piece."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return self._head | {"object": "chat.completion.chunk", "choices": [choice]}

    def usage_chunk(self, completions: Sequence[Completion]) -> dict[str, Any]:
        """Return the last piece where the client wants to know what it cost."""
        return self._head | {"object": "chat.completion.chunk", "choices": [], "usage": usage_of(completions)}

    def more_facts(self, completion: Completion) -> dict[str, Any]:
        """Return what there is to say beside OpenAI's fields; overruled tokens are docs/engine.md's."""
        return {
            "edgewright": {
                "notes": list(self._asked.notes),
                "overruled_tokens": completion.overruled_tokens,
                "prefill_s": round(completion.prefill_s, 4),
                "decode_s": round(completion.decode_s, 4),
            }
        }

    @property
    def _longest_stop(self) -> int:
        return max(map(len, self._asked.stops), default=0)

    def _cut(self, answer: str) -> str:
        """Return an answer up to the first of the texts before which it should stop."""
        places = [place for stop in self._asked.stops if (place := answer.find(stop)) >= 0]
        self.has_stopped = bool(places)
        return answer[: min(places)] if places else answer

    def _new(self, kind: str, text: str) -> Iterator[dict[str, Any]]:
        if len(text) > len(self._sent[kind]):
            yield {kind: text[len(self._sent[kind]) :]}
            self._sent[kind] = text


def usage_of(completions: Sequence[Completion]) -> dict[str, Any]:
    """Return what replies cost, in tokens."""
    prompt = sum(one.prompt_tokens for one in completions)
    made = sum(len(one.token_ids) for one in completions)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": sum(one.reused_tokens for one in completions)},
    }


def _plain_call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
