"""JSON lines: one JSON value a line. A line ends with a newline and with nothing else: text may hold U+2028."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from devices.errors import UsageError

Item = TypeVar("Item")


def read_json_lines(path: Path, parse: Callable[[Any], Item], what: str, hint: str = "") -> Iterator[tuple[str, Item]]:
    """Yield where each line stands, as file:line, and what it holds; empty lines count and are passed over.

    Args:
        path: the file.
        parse: makes an item of a line's JSON; raises ValueError, KeyError, TypeError or AttributeError if it is none.
        what: an item in words, such as "case".
        hint: what to do about a line that is none.

    Raises:
        UsageError: the file cannot be read or is a JSON array, or a line is no item; the message names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if text.lstrip().startswith("["):
        raise UsageError(f"{path}: a JSON array, and not one {what} a line", hint=hint)
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            item = parse(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{where}: not a {what}: {error!r}", hint=hint) from error
        yield where, item
