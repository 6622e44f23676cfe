"""Results of calls: joined to their calls by id, put into one turn, and taken apart again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from edge_agent.wire.messages import Message
from finetune.data.formats.errors import Unreadable

Turn = tuple[Message, Sequence[Any]]  # with ids: of its calls; or of its result, as its turn and as its text has it


def in_order(turns: Iterable[Turn]) -> Iterator[Message]:
    """Yield the messages of turns, results in the order of their calls, by id; without ids as they came.

    Raises:
        Unreadable: an id that no call has, or that two have, or calls or results without one beside others with one.
    """
    ids: list[Any] = []
    results: list[Turn] = []
    for message, given in turns:
        if message.role == "tool":
            results.append((message, given))
            continue
        yield from _ordered(results, ids)
        ids = [*([] if results or message.role != "assistant" else ids), *given]
        results = []
        yield message
    yield from _ordered(results, ids)


def _ordered(results: Sequence[Turn], ids: Sequence[Any]) -> list[Message]:
    # An id that only the text of a result has counts where calls have ids: it stays there when theirs are not written.
    given = [own or (written if any(ids) else None) for _, (own, written) in results]
    if not any(given):
        return [message for message, _ in results]
    for number in given:
        if number is None:
            raise Unreadable("results with and without tool_call_id")
        if number not in ids:
            raise Unreadable(f"a result of {number!r}, and there is no such call before it")
        if given.count(number) > 1 or ids.count(number) > 1:
            raise Unreadable(f"two calls or results have the id {number!r}")
    if missing := [number for number in ids if number not in given]:
        raise Unreadable(f"the call {missing[0]!r} has no result, and others have")
    return [results[given.index(number)][0] for number in ids]


def joined_results(messages: Iterable[Message]) -> list[Message]:
    """Return messages with results that follow each other in one turn, a line each, where each is one line."""
    joined: list[Message] = []
    for message in messages:
        is_line = message.role == "tool" and "\n" not in message.text
        if is_line and len(joined) > 1 and joined[-1].role == "tool":
            calls = next((one.calls for one in reversed(joined) if one.role == "assistant"), ())
            if joined[-1].text.count("\n") + 1 < len(calls):
                joined[-1] = Message("tool", f"{joined[-1].text}\n{message.text}")
                continue
        joined.append(message)
    return joined


def split_results(messages: Sequence[Message]) -> list[Message]:
    """Return messages with one tool turn for each call, where a turn holds a line for each."""
    split: list[Message] = []
    calls = 0
    for message in messages:
        lines = message.text.split("\n") if message.role == "tool" else []
        if len(lines) == calls > 1:
            split += [Message("tool", line) for line in lines]
        else:
            split.append(message)
        if message.role == "assistant":
            calls = len(message.calls)
    return split
