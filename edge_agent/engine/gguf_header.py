"""Check a GGUF file's header in Python, before native code sees it: a cut or hostile file gives one clear line.

Every length is compared with the size of the file before it is used, and every tensor must lie in the file, at
the place where llama.cpp will look for it.

Does not guard against: wrong values inside well-formed fields and tensors (the bundle's hashes do).
Source: ggml docs/gguf.md, version 3; ggml/src/gguf.cpp, gguf_init_from_file.
"""

from __future__ import annotations

import errno
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import RefusedError, UnavailableError, UsageError

MAGIC, VERSIONS = b"GGUF", (2, 3)
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
MAX_NAME_BYTES = 63  # GGML_MAX_NAME less the closing zero
DEFAULT_ALIGNMENT = 32
# Scalars by GGUF value type; 8 is a string and 9 an array.
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
# Name, values in a block, bytes of a block, by ggml type (gguf.GGML_QUANT_SIZES).
TENSOR_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 20: ("IQ4_NL", 32, 18), 23: ("IQ4_XS", 256, 136),
    30: ("BF16", 1, 2),
}  # fmt: skip


class BadGguf(RefusedError):
    """The file is no whole GGUF."""


@dataclass(frozen=True)
class GgufHeader:
    """What the header says.

    Attributes:
        metadata: scalars and strings by key; arrays are checked and skipped.
        tensor_types: such as "Q4_K", by tensor name.
        metadata_end, tensors_end: where the keys and the descriptions of tensors end, in bytes; the tensors follow,
            from the next multiple of `alignment`.
    """

    version: int
    metadata: dict[str, bool | int | float | str]
    tensor_types: dict[str, str]
    metadata_end: int
    tensors_end: int
    alignment: int


def require_gguf(path: Path) -> GgufHeader:
    """Return the header of a GGUF file whose every part lies inside the file.

    Raises:
        BadGguf: it is cut, or something in the header cannot be; the message says what and where.
        UsageError: it cannot be read.
        UnavailableError: there is too little memory.
    """
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
            if size_bytes < 24:
                raise BadGguf(f"{path}: {size_bytes} bytes are no GGUF file", hint="copy or export it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data, size_bytes).header()
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise UnavailableError(
                f"too little memory to read the model {path}: {error}", hint="a smaller quantization needs less"
            ) from error
        raise UsageError(f"cannot read the model {path}: {error}") from error


class _Reader:
    def __init__(self, path: Path, data: mmap.mmap, size_bytes: int) -> None:
        self._path, self._data, self._size, self._at = path, data, size_bytes, 0

    def _fail(self, what: str) -> BadGguf:
        return BadGguf(f"{self._path}: {what} (at byte {self._at} of {self._size})", hint="copy or export it again")

    def _skip(self, size_bytes: int, what: str) -> int:
        start = self._at
        if size_bytes > self._size - start:
            raise self._fail(f"the file ends inside {what}, which says it has {size_bytes} bytes")
        self._at = start + size_bytes
        return start

    def _number(self, form: str, what: str) -> Any:
        return struct.unpack_from(form, self._data, self._skip(struct.calcsize(form), what))[0]

    def _string(self, what: str) -> str:
        length = self._number("<Q", f"the length of {what}")
        start = self._skip(length, what)
        try:
            return self._data[start : self._at].decode("utf-8")
        except UnicodeDecodeError:
            raise self._fail(f"{what} is not UTF-8") from None

    def header(self) -> GgufHeader:
        if self._data[self._skip(4, "the magic") : 4] != MAGIC:
            raise self._fail("this is no GGUF file")
        version = self._number("<I", "the version")
        if version not in VERSIONS:
            raise self._fail(f"GGUF version {version} is not one of {', '.join(map(str, VERSIONS))}")
        tensor_count = self._number("<Q", "the number of tensors")
        key_count = self._number("<Q", "the number of keys")
        metadata: dict[str, bool | int | float | str] = {}
        seen: set[str] = set()
        for number in range(key_count):  # ends by itself: each round takes bytes, and the file has no more
            key = self._string(f"the name of key {number} of {key_count}")
            if not key or key in seen:
                raise self._fail(f"key {key!r} is there twice" if key else f"key {number} has no name")
            seen.add(key)
            value = self._value(key)
            if value is not None:
                metadata[key] = value
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self._fail(f"alignment {alignment} is not a power of two")
        metadata_end = self._at
        types = self._tensors(tensor_count, alignment)
        return GgufHeader(version, metadata, types, metadata_end, self._at, alignment)

    def _value(self, key: str) -> bool | int | float | str | None:
        kind = self._number("<I", f"the type of {key}")
        if kind == _STRING:
            return self._string(key)
        if kind == _ARRAY:
            self._skip_array(key)
            return None
        if kind not in _SCALARS:
            raise self._fail(f"{key} has the unknown type {kind}")
        value: bool | int | float = self._number(_SCALARS[kind], key)
        if kind == _BOOL:
            if value not in (0, 1):
                raise self._fail(f"{key} is {value}, neither true nor false")
            return bool(value)
        return value

    def _skip_array(self, key: str) -> None:
        kind = self._number("<I", f"the type of {key}")
        count = self._number("<Q", f"the length of {key}")
        if kind in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[kind]), key)
        elif kind == _STRING:
            if count > (self._size - self._at) // 8:
                raise self._fail(f"the file ends inside {key}, which says it has {count} entries")
            length_at, data, at, size = struct.Struct("<Q").unpack_from, self._data, self._at, self._size
            for _ in range(count):
                if at + 8 > size:
                    break
                at += 8 + length_at(data, at)[0]
            if at > size or (count and at + 8 > size):
                raise self._fail(f"the file ends inside {key}")
            self._at = at
        else:
            raise self._fail(f"{key} is an array of the unsupported type {kind}")

    def _tensors(self, count: int, alignment: int) -> dict[str, str]:
        if count < 1:
            raise self._fail("the file has no tensors")
        types: dict[str, str] = {}
        places: list[tuple[str, int, int]] = []
        for number in range(count):
            name = self._string(f"the name of tensor {number} of {count}")
            if not 0 < len(name.encode()) <= MAX_NAME_BYTES or name in types:
                raise self._fail(f"tensor {number} of {count} has the name {name[:80]!r}")
            types[name], size_bytes = self._tensor(name)
            places.append((name, self._number("<Q", f"the place of {name}"), size_bytes))
        start, expected = _padded(self._at, alignment), 0
        for name, offset, size_bytes in places:
            if offset != expected:
                raise self._fail(f"tensor {name} is said to start at {offset}, which should be {expected}")
            if start + offset + size_bytes > self._size:
                raise self._fail(f"tensor {name} needs bytes up to {start + offset + size_bytes}: the file is cut")
            expected = _padded(offset + size_bytes, alignment)
        return types

    def _tensor(self, name: str) -> tuple[str, int]:
        dimensions = self._number("<I", f"the dimensions of {name}")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self._fail(f"tensor {name} has {dimensions} dimensions")
        shape = [self._number("<Q", f"the shape of {name}") for _ in range(dimensions)]
        kind = self._number("<I", f"the type of {name}")
        if kind not in TENSOR_TYPES:
            raise self._fail(f"tensor {name} has the unknown type {kind}")
        type_name, block, block_bytes = TENSOR_TYPES[kind]
        if min(shape) < 1 or shape[0] % block:
            raise self._fail(f"tensor {name} of type {type_name} cannot have the shape {shape}")
        values = 1
        for size in shape:
            values *= size
        return type_name, values // block * block_bytes


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
