"""Ways to damage bytes, JSON and files, as a bad disk, a bad line and a bad person do. All chance comes from `draw`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

BY_A_DISK = ("gone", "another file", "a folder", "another name")  # what a bad disk makes of a file
ENDLESS_BYTES = 1 << 40  # of a file that is one hole
NAMES = ("../x", "/etc/x", "x\u0000", "", ".", "..", "CON", "manifest.json", "\ud800", "a" * 300, "x\n", "\u202ex")
STRANGE = (  # values of JSON, as they are written
    "null", "true", "-1", "0", "1.5", "1e999", "NaN", str(10**30), str(10**400), "9" * 5000, '""', "[]", "{}",
    "[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000, '"' + "x" * 100_000 + '"',
    *(json.dumps(name) for name in NAMES),
)  # fmt: skip


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written: names with values, in order, a name perhaps twice."""


class _Written(str):
    """JSON as it is written."""


def damaged_bytes(data: bytes, draw: Random) -> tuple[str, bytes]:
    """Return in words what was done to bytes, and what became of them."""
    made, at = bytearray(data or b"x"), draw.randrange(len(data) or 1)
    size = draw.randint(1, 64)
    kinds: dict[str, Callable[[], bytes]] = {
        "a bit": lambda: bytes(made[:at]) + bytes([made[at] ^ 1 << draw.randrange(8)]) + bytes(made[at + 1 :]),
        "cut": lambda: bytes(made[:at]),
        "empty": lambda: b"",
        "a part gone": lambda: bytes(made[:at] + made[at + size :]),
        "a part twice": lambda: bytes(made[: at + size] + made[at:]),
        "doubled": lambda: bytes(made + made),
        "zeros": lambda: bytes(made[:at] + bytes(size) + made[at + size :]),
        "noise": lambda: bytes(made[:at]) + draw.randbytes(size) + bytes(made[at + size :]),
        "longer": lambda: bytes(made) + draw.randbytes(size),
        "halves exchanged": lambda: bytes(made[at:] + made[:at]),
    }
    kind = draw.choice(list(kinds))
    return kind, kinds[kind]()


def damaged_json(data: bytes, draw: Random) -> tuple[str, bytes]:
    """Return in words what was done to a JSON text whose root is an object, and what became of it."""
    root = json.loads(data, object_pairs_hook=_Pairs)
    objects = [one for one in _objects(root) if one]
    pairs, other = draw.choice(objects), draw.choice(objects)
    at, strange = draw.randrange(len(pairs)), _Written(draw.choice(STRANGE))
    name, value = pairs[at]
    kinds: dict[str, Callable[[], object]] = {
        "a value changed": lambda: pairs.__setitem__(at, (name, strange)),
        "a number changed": lambda: _change_number(objects, draw),
        "a key twice, the other first": lambda: pairs.insert(at, (name, strange)),
        "a key twice, the other last": lambda: pairs.append((name, strange)),
        "an unknown key": lambda: pairs.insert(at, ("x-critical", strange)),
        "a key gone": lambda: pairs.pop(at),
        "a bad name": lambda: pairs.__setitem__(at, (draw.choice(NAMES), value)),
        "a value from elsewhere": lambda: pairs.__setitem__(at, (name, deepcopy(draw.choice(other)[1]))),
        "another order": pairs.reverse,
        "other spaces": lambda: None,
    }
    texts: dict[str, Callable[[bytes], bytes]] = {
        "text behind": lambda text: text + b"{}",
        "a byte order mark": lambda text: b"\xef\xbb\xbf" + text,
        "UTF-16": lambda text: text.decode("utf-8").encode("utf-16"),
        "a list around": lambda text: b"[" + text + b"]",
    }
    kind = draw.choice([*kinds, *texts])
    if kind in texts:
        return kind, texts[kind](data)
    kinds[kind]()
    return kind, (_dumped(root) + "\n").encode("utf-8")


def damage_file(path: Path, others: Sequence[Path], draw: Random, kinds_of: Sequence[str] = ()) -> str:
    """Put something else in a file's place, one of some kinds; return in words what. `others` may take its place."""
    aside = path.with_name(f"{path.name}.aside")
    other = draw.choice([one for one in others if one != path])

    def elsewhere() -> None:
        path.rename(aside)
        path.symlink_to(aside.name)

    kinds: dict[str, Callable[[], object]] = {
        "gone": path.unlink,
        "another file": lambda: shutil.copyfile(other, path),
        "a link to another file": lambda: (path.unlink(), path.symlink_to(other)),
        "a link to itself elsewhere": elsewhere,
        "a link to itself": lambda: (path.unlink(), path.symlink_to(path.name)),
        "a link to /dev/zero": lambda: (path.unlink(), path.symlink_to("/dev/zero")),
        "a pipe": lambda: (path.unlink(), os.mkfifo(path)),
        "a folder": lambda: (path.unlink(), path.mkdir()),
        "endless": lambda: os.truncate(path, ENDLESS_BYTES),
        "another name": lambda: path.rename(path.with_name(draw.choice((path.name.upper(), f"{path.name} ", "x\n")))),
        "a file more": lambda: path.with_name(draw.choice(("x", ".x", "x\n", "a" * 255, "X.JSON"))).write_bytes(b"x"),
        "a folder more": lambda: path.with_name("more").mkdir(),
    }
    kind = draw.choice(list(kinds_of or kinds))
    kinds[kind]()
    return kind


def _objects(node: object) -> list[_Pairs]:
    """Return the objects of a JSON tree, the outer ones first."""
    if isinstance(node, _Pairs):
        return [node, *(inner for _, value in node for inner in _objects(value))]
    return [inner for value in node for inner in _objects(value)] if isinstance(node, list) else []


def _change_number(objects: Sequence[_Pairs], draw: Random) -> None:
    """Raise or lower one of the numbers, or take the first value for one if there is none."""
    found = [(pairs, at) for pairs in objects for at, (_, value) in enumerate(pairs) if type(value) is int]
    pairs, at = draw.choice(found) if found else (objects[0], 0)
    name, value = pairs[at]
    pairs[at] = (name, (value if type(value) is int else 0) + draw.choice((-1, 1, 1000, 2**31, 2**63)))


def _dumped(node: object) -> str:
    if isinstance(node, _Pairs):
        return "{" + ", ".join(f"{json.dumps(name)}: {_dumped(value)}" for name, value in node) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(_dumped, node)) + "]"
    return node if isinstance(node, _Written) else json.dumps(node)
