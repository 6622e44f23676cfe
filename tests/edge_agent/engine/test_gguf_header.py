"""A cut, flipped or hostile GGUF header gives our error, never a crash, a hang or much memory."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from devices.errors import UsageError
from edge_agent.engine.gguf_header import TENSOR_TYPES, BadGguf, require_gguf
from tests.tiny_bundle import make_tiny_gguf


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return make_tiny_gguf(path, {"general.name": "tiny", "edgewright.contract": "0" * 64}).read_bytes()


def test_a_sound_header_is_read(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(data)
    header = require_gguf(tmp_path / "m.gguf")
    assert header.version == 3
    assert header.metadata["general.name"] == "tiny"
    assert header.metadata["llama.rope.freq_base"] == 10000.0
    assert header.metadata["tokenizer.ggml.add_bos_token"] is False
    assert header.tensor_types == {"token_embd.weight": "F16", "output_norm.weight": "F32"}


def test_every_cut_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(BadGguf, match="byte"):
            require_gguf(path)


def read_by_gguf(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return metadata (no arrays) and tensor types as the gguf package reads them: as far as that goes, an oracle."""
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(path)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    array = gguf.GGUFValueType.ARRAY
    metadata = {name: field.contents() for name, field in fields.items() if field.types[0] != array}
    return metadata, {one.name: one.tensor_type.name for one in reader.tensors}


def structure_of(path: Path) -> set[int]:
    """Return the places of all bytes that say how much comes, or where: magic, counts, lengths, dimensions, offsets."""
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(path)
    places = {*range(4), *range(8, 24)}
    for field in reader.fields.values():
        if field.name.startswith("GGUF."):
            continue
        at = field.offset
        for number, part in enumerate(field.parts):
            is_length = number == 0 or (
                part.dtype.itemsize == 8 and number not in field.data
            )  # a key's, a text's, a count
            places |= set(range(at, at + part.nbytes)) if is_length else set()
            at += part.nbytes
    for tensor in reader.tensors:
        at = tensor.field.offset
        for number, part in enumerate(tensor.field.parts):  # length of the name, name, dimensions, shape, type, offset
            places |= set(range(at, at + part.nbytes)) if number in (0, 2, 3, 5) else set()
            at += part.nbytes
    return places


def test_every_flipped_bit_is_refused_or_read_as_gguf_reads_it(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    structure, whole = structure_of(path), require_gguf(path)
    refused, accepted = 0, 0
    for place in range(whole.tensors_end):
        for bit in (0, 3, 7):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                header = require_gguf(path)
            except BadGguf:
                refused += 1
                continue
            assert place not in structure, f"bit {bit} of byte {place}"
            assert (header.metadata, header.tensor_types) == read_by_gguf(path), f"bit {bit} of byte {place}"
            accepted += 1
    assert refused > 3 * 100 and accepted > 100  # those accepted changed letters and numbers


@pytest.mark.parametrize("count", [2**63, 2**64 - 1, 2**32, 10**9])
@pytest.mark.parametrize("place", [8, 16])
def test_hostile_counts_are_refused_at_once(data: bytes, tmp_path: Path, place: int, count: int) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data[:place] + struct.pack("<Q", count) + data[place + 8 :])
    with pytest.raises(BadGguf):
        require_gguf(path)


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (entry(b"a", 8, struct.pack("<Q", 2**64 - 1)), "ends inside a"),
        (entry(b"a", 9, struct.pack("<IQ", 8, 2**62)), "ends inside a"),
        (entry(b"a", 9, struct.pack("<IQQ", 8, 1, 2**64 - 1)), "ends inside a"),
        (entry(b"a", 9, struct.pack("<IQ", 12, 2**61)), "ends inside a"),
        (entry(b"a", 9, struct.pack("<IQ", 9, 1)), "unsupported type 9"),
        (entry(b"a", 77, b""), "unknown type 77"),
        (entry(b"a", 7, b"\x02"), "neither true nor false"),
        (entry(b"", 4, b"\0" * 4), "has no name"),
        (entry(b"\xff", 4, b"\0" * 4), "not UTF-8"),
        (entry(b"general.alignment", 4, struct.pack("<I", 24)), "power of two"),
        (entry(b"general.alignment", 4, struct.pack("<I", 0)), "power of two"),
    ],
)
def test_hostile_keys_are_refused(tmp_path: Path, value: bytes, message: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + value + b"\0" * 64)
    with pytest.raises(BadGguf, match=message):
        require_gguf(path)


@pytest.mark.parametrize(
    ("kind", "form", "number"),
    [
        (0, "<B", 200), (1, "<b", -3), (2, "<H", 60_000), (3, "<h", -300), (4, "<I", 2**32 - 1), (5, "<i", -70_000),
        (6, "<f", -0.5), (7, "<B", True), (10, "<Q", 2**64 - 1), (11, "<q", -(2**40)), (12, "<d", 1e300),
    ],
)  # fmt: skip
def test_numbers_are_read_as_they_were_written(tmp_path: Path, kind: int, form: str, number: float) -> None:
    path = tmp_path / "m.gguf"
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + entry(b"a", kind, struct.pack(form, number))
    path.write_bytes(head + tensor(b"t", (8,), 0, 0) + b"\0" * 256)
    assert require_gguf(path).metadata == {"a": number}


def tensor(name: bytes, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    sizes = b"".join(struct.pack("<Q", size) for size in shape)
    return (
        struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)
    )


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([tensor(b"a", (2**62, 4), 0, 0)], "the file is cut"),
        ([tensor(b"a", (2**63, 2**63, 2**63, 2**63), 0, 0)], "the file is cut"),
        ([tensor(b"a", (0,), 0, 0)], "cannot have the shape"),
        ([tensor(b"a", (100,), 12, 0)], "cannot have the shape"),
        ([tensor(b"a", (1, 1, 1, 1, 1), 0, 0)], "5 dimensions"),
        ([tensor(b"a", (), 0, 0)], "0 dimensions"),
        ([tensor(b"a", (8,), 99, 0)], "unknown type 99"),
        ([tensor(b"a", (8,), 0, 2**63)], "should be 0"),
        ([tensor(b"a", (8,), 0, 0), tensor(b"b", (8,), 0, 0)], "should be 32"),
        ([tensor(b"a", (8,), 0, 0), tensor(b"a", (8,), 0, 32)], "has the name"),
        ([tensor(b"a" * 64, (8,), 0, 0)], "has the name"),
        ([], "no tensors"),
    ],
)
def test_hostile_tensors_are_refused(tmp_path: Path, tensors: list[bytes], message: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), 0) + b"".join(tensors) + b"\0" * 256)
    with pytest.raises(BadGguf, match=message):
        require_gguf(path)


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        require_gguf(tmp_path / "none.gguf")
    with pytest.raises(UsageError):
        require_gguf(tmp_path)


def test_the_sizes_of_types_are_gguf_s() -> None:
    gguf = pytest.importorskip("gguf")
    for number, (name, *sizes) in TENSOR_TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, list(gguf.GGML_QUANT_SIZES[kind])) == (name, sizes)
