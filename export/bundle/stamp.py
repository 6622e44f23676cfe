"""Copy a GGUF file and write more about it into its metadata: what is known only once the file is made and measured.

Source: ggml docs/gguf.md, version 3.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

from edge_agent.engine.gguf_header import require_gguf

_COUNTS = struct.Struct("<4sIQQ")  # magic, version, tensors, keys
_STRING = 8


def copy_stamped(source: Path, out: Path, strings: Mapping[str, str]) -> None:
    """Write a copy of a GGUF file that has more string keys; its tensors are the same bytes.

    Raises:
        BadGguf: the source is unsound.
    """
    header = require_gguf(source)
    assert not strings.keys() & header.metadata.keys(), strings.keys()
    added = b"".join(_text(key) + struct.pack("<I", _STRING) + _text(value) for key, value in strings.items())
    with source.open("rb") as given, out.open("wb") as made:
        magic, version, tensors, keys = _COUNTS.unpack(given.read(_COUNTS.size))
        made.write(_COUNTS.pack(magic, version, tensors, keys + len(strings)))
        made.write(given.read(header.metadata_end - _COUNTS.size) + added)
        made.write(given.read(header.tensors_end - header.metadata_end))
        made.write(bytes(-made.tell() % header.alignment))
        given.seek(header.tensors_end + -header.tensors_end % header.alignment)
        shutil.copyfileobj(given, made, 2**20)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
