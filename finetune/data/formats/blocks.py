"""Messages made of blocks, as Anthropic's API has them (tool_use, tool_result, thinking): taken apart into OpenAI's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

BLOCKS = {"tool_use", "tool_result", "thinking"}


def without_blocks(messages: Iterable[Any]) -> Iterator[Any]:
    """Yield messages as OpenAI's API has them; those without such blocks as they are.

    A user's message with results is a message for each, and then what else the user says.
    """
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        content = content if isinstance(content, list) else []
        blocks = [part for part in content if isinstance(part, dict)]
        if not any(block.get("type") in BLOCKS for block in blocks):
            yield message
            continue
        yield from (
            {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": block.get("content")}
            for block in blocks
            if block.get("type") == "tool_result"
        )
        if not all(block.get("type") == "tool_result" for block in blocks):
            yield message | {
                "content": [part for part in content if not isinstance(part, dict) or part.get("type") not in BLOCKS],
                "reasoning_content": "\n".join(
                    str(block.get("thinking")) for block in blocks if block.get("type") == "thinking"
                ),
                "tool_calls": [
                    {"id": block.get("id"), "name": block.get("name"), "arguments": block.get("input")}
                    for block in blocks
                    if block.get("type") == "tool_use"
                ],
            }
