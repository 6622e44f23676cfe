"""Conversations from files, folders and the Hub, in whatever form: each row is read, or rejected with a reason."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from devices.errors import UnavailableError, UsageError
from finetune.data.formats import alpaca, openai, sharegpt, xlam
from finetune.data.formats.annotations import loose_types
from finetune.data.formats.errors import Unreadable, Unwritable
from finetune.data.formats.nulls import without_null_arguments, without_nulls
from finetune.data.rows import Row, write_lines


def read_own(plain: dict[str, Any]) -> Row:
    """Return the row of Edgewright's own form, without Arrow's nulls. Raises ValueError, KeyError or TypeError."""
    row = Row.from_dict(plain)
    return without_null_arguments(replace(row, tools=tuple(map(without_nulls, row.tools))))


READERS: dict[str, Callable[[dict[str, Any]], Row]] = {
    "edgewright": read_own,
    "sharegpt": sharegpt.read,  # Hermes' too
    "openai": openai.read,
    "alpaca": alpaca.read,
    "xlam": xlam.read,
    "trl": openai.read_prompt,
}
WRITERS: dict[str, Callable[[Row], dict[str, Any]]] = {
    "edgewright": Row.to_dict,
    "sharegpt": sharegpt.write,
    "sharegpt-text": sharegpt.write_text,
    "hermes": sharegpt.write_hermes,
    "openai": openai.write,
    "alpaca": alpaca.write,
    "xlam": xlam.write,
    "trl": openai.write_prompt,
}
SUFFIXES = {".jsonl", ".json", ".parquet"}
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.\[\]%-]+)?")


@dataclass(frozen=True)
class Rejected:
    """A row that could not be read or written: where it stands, why, and the row itself."""

    where: str
    reason: str
    row: Any


@dataclass
class Converted:
    """How many rows there were, and what became of them: written and rejected add up to it.

    `loose_types` counts, in what was written, arguments of types that JSON Schema has not, such as np.ndarray.
    """

    rows: int = 0
    written: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    loose_types: Counter[str] = field(default_factory=Counter)


def format_of(plain: Any) -> str:
    """Return the name of the format that a row is in. Raises Unreadable if its keys are none's."""
    keys = {key for key, value in plain.items() if value is not None} if isinstance(plain, dict) else set()
    if "conversations" in keys:
        return "sharegpt"
    if {"kinds", "messages"} <= keys:
        return "edgewright"
    for needed, name in (
        ({"messages"}, "openai"),
        ({"query", "tools", "answers"}, "xlam"),
        ({"instruction", "output"}, "alpaca"),
        ({"prompt", "completion"}, "trl"),
    ):
        if needed <= keys:
            return name
    raise Unreadable(f"its keys are those of no format: {', '.join(sorted(map(str, keys)))[:80] or 'none'}")


def read_row(plain: Any, name: str = "") -> Row:
    """Return the row that plain JSON stands for, in the format named or in the one that its keys show.

    Raises:
        Unreadable: it is not one.
    """
    reader = READERS[name or format_of(plain)]
    try:
        return reader(plain)
    except Unreadable:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise Unreadable(f"not of this format: {type(error).__name__} {error}") from error


def read_source(source: str, name: str = "") -> Iterator[tuple[str, Any, Row | Rejected]]:
    """Yield for each row where it stands, its plain JSON, and the row or why it is none.

    Args:
        source: a file (.jsonl, .json with a list, .parquet), a folder of them, or a Hub id such as `org/name:split`.
        name: one of READERS; "" finds it out row by row.

    Raises:
        UsageError: there is no such source.
        UnavailableError: the Hub cannot be reached.
    """
    for where, plain in _plain_rows(source):
        if isinstance(plain, Rejected):
            yield where, plain.row, plain
            continue
        try:
            yield where, plain, read_row(plain, name)
        except Unreadable as error:
            yield where, plain, Rejected(where, str(error), plain)


def nth_row(source: str, number: int) -> tuple[str, Row]:
    """Return where a source's row stands, and the row. Raises UsageError if there is none, or it cannot be read."""
    count = 0
    for count, (where, _, row) in enumerate(read_source(source), start=1):
        if count == number:
            if isinstance(row, Rejected):
                raise UsageError(f"{where}: {row.reason}")
            return where, row
    raise UsageError(f"{source} has {count} conversations, not {number}")


def _plain_rows(source: str) -> Iterator[tuple[str, Any]]:
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
        if not files:
            raise UsageError(f"{path} has no {', '.join(sorted(SUFFIXES))} file")
        for file in files:
            yield from _rows_of_file(file)
    elif path.is_file():
        yield from _rows_of_file(path)
    elif _HUB.fullmatch(source) and not path.parent.is_dir():
        yield from _rows_of_hub(source)
    else:
        raise UsageError(f"there is no {path}", hint="give a file, a folder, or a Hub id such as org/name:train")


def _rows_of_file(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".parquet":
        yield from ((f"{path}:{number}", row) for number, row in enumerate(_rows_of_parquet(path), start=1))
        return
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the conversations {path}: {error}") from error
    if path.suffix == ".json" or text.lstrip().startswith("["):
        try:
            listed = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{path} is not JSON: {error}") from error
        for number, row in enumerate(listed if isinstance(listed, list) else [listed], start=1):
            yield f"{path}:{number}", row
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                yield where, json.loads(line)
            except ValueError as error:
                yield where, Rejected(where, f"not JSON: {error}", line)


def _rows_of_parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError(f"cannot read the conversations {path}: {error}") from error


def _rows_of_hub(source: str) -> Iterator[tuple[str, Any]]:
    from datasets import load_dataset

    name, _, split = source.partition(":")
    try:
        rows = iter(load_dataset(name, split=split or "train", streaming=True))
        for number, row in enumerate(rows, start=1):
            yield f"{source}:{number}", row
    except Exception as error:  # the Hub's client has many of its own
        raise UnavailableError(
            f"cannot read {source} from the Hub: {type(error).__name__}", hint="is it its name, and is there a network?"
        ) from error


def convert_file(source: str, name: str, to: str, out: Path, rejects: Path, *, strict: bool = False) -> Converted:
    """Write a source's rows as JSONL in another format, and those that cannot be beside them; return the counts.

    Args:
        source: as read_source takes it.
        name: the format that it is in, one of READERS; "" finds it out row by row.
        to: one of WRITERS.
        out: where rows go, whole or not at all.
        rejects: where rejected rows go, each with its place and reason; the file is there only if there are some.
        strict: stop at the first rejected row.

    Raises:
        UsageError: there is no such source or format, no row could be written, or, if strict, a row was rejected.
        UnavailableError: the Hub cannot be reached.
    """
    for given, known in ((name, READERS), (to, WRITERS)):
        if given and given not in known:
            raise UsageError(f"no format is called {given!r}", hint=f"formats: {', '.join(known)}")
    counts = Converted()
    write_lines(out, _converted(source, name, to, counts, strict))
    if counts.rejected:
        entries = ({"where": one.where, "reason": one.reason, "row": one.row} for one in counts.rejected)
        write_lines(rejects, (json.dumps(entry, ensure_ascii=False, default=str) for entry in entries))
    return counts


def _converted(source: str, name: str, to: str, counts: Converted, strict: bool) -> Iterator[str]:
    for where, plain, row in read_source(source, name):
        counts.rows += 1
        if isinstance(row, Row):
            try:
                line = json.dumps(WRITERS[to](row), ensure_ascii=False)
            except Unwritable as error:
                row = Rejected(where, str(error), plain)
        if isinstance(row, Rejected):
            if strict:
                raise UsageError(f"{row.where}: {row.reason}", hint="without --strict it is set aside")
            counts.rejected.append(row)
            continue
        counts.written += 1
        counts.loose_types.update(loose_types(row.tools))
        yield line
