"""What was cached comes back as it was, or not at all."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edge_agent.engine.cache_file import read_cache, write_cache

DATA = bytes(range(256)) * 3


def test_it_comes_back_under_its_key_only(tmp_path: Path) -> None:
    write_cache(tmp_path / "f", "model 1", DATA)
    data = read_cache(tmp_path / "f", "model 1")
    assert data is not None and bytes(data) == DATA
    assert read_cache(tmp_path / "f", "model 2") is None
    assert read_cache(tmp_path / "none", "model 1") is None
    assert read_cache(tmp_path, "model 1") is None
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_cut_anywhere_it_is_nothing(tmp_path: Path) -> None:
    write_cache(tmp_path / "f", "key", DATA)
    whole = (tmp_path / "f").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "f").write_bytes(whole[:size])
        assert read_cache(tmp_path / "f", "key") is None
    (tmp_path / "f").write_bytes(whole + b"x")
    assert read_cache(tmp_path / "f", "key") is None


def test_with_any_bit_flipped_it_is_nothing(tmp_path: Path) -> None:
    write_cache(tmp_path / "f", "key", DATA)
    whole = (tmp_path / "f").read_bytes()
    draw = random.Random(1)
    for place in [*range(80), *draw.sample(range(80, len(whole)), 200)]:
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        (tmp_path / "f").write_bytes(changed)
        assert read_cache(tmp_path / "f", "key") is None


def test_a_disk_that_cannot_be_written_to_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_cache(tmp_path / "no" / "f", "key", DATA)
