"""Files of JSON lines: empty lines are no items, and are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.errors import UsageError
from devices.json_lines import read_json_lines


@pytest.mark.parametrize("text", ["1\n2\n", "1\n2", "1\n\n2\n", "\n1\n \n\n2\n\n", "1\r\n\r\n2\r\n"])
def test_empty_lines_are_passed_over(text: str, tmp_path: Path) -> None:
    (tmp_path / "numbers.jsonl").write_bytes(text.encode())
    assert [number for _, number in read_json_lines(tmp_path / "numbers.jsonl", int, "number")] == [1, 2]


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": 2}]', '\n[\n  {"a": 1}\n]\n', "[]"])
def test_a_json_array_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "numbers.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"numbers\.json: a JSON array, and not one number a line") as caught:
        list(read_json_lines(tmp_path / "numbers.json", dict, "number", "write one a line"))
    assert caught.value.hint == "write one a line"


def test_a_line_number_counts_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "numbers.jsonl"
    file.write_text('1\n\n \n2\n\n"none"\n', encoding="utf-8")
    found = read_json_lines(file, int, "number")
    assert next(found) == (f"{file}:1", 1) and next(found) == (f"{file}:4", 2)
    with pytest.raises(UsageError, match=r"numbers.jsonl:6: not a number: "):
        next(found)
