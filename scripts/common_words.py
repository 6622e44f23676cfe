"""Write edge_agent/wire/common_words.txt: the words of the corpus of requests, which are no slips of other words."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from devices.yaml_file import plain_values, read_yaml

ROOT = Path(__file__).parents[1]
OUT = ROOT / "edge_agent" / "wire" / "common_words.txt"


def common_words() -> str:
    """Return the words in finetune/asks of four letters or more, one a line, in order."""
    asks = ROOT / "finetune" / "asks"
    paths = sorted([*asks.glob("*.yaml"), *(asks / "kinds").glob("*.yaml")])
    lines = (line for path in paths for line in _lines_in(plain_values(read_yaml(path, "asks").root)))
    words = {word.lower() for line in lines for word in re.findall(r"[^\W\d_]{4,}", re.sub(r"{\w+}", " ", line))}
    return "".join(f"{word}\n" for word in sorted(words))


def _lines_in(plain: Any) -> Iterator[str]:
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, dict | list):
        for one in plain.values() if isinstance(plain, dict) else plain:
            yield from _lines_in(one)


if __name__ == "__main__":
    OUT.write_text(common_words(), encoding="utf-8")
