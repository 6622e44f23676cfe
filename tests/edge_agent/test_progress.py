"""Progress: plain lines now and then where there is no terminal, a bar that notes leave whole where there is one."""

from __future__ import annotations

import io
import shutil
from os import terminal_size

import pytest

from edge_agent import progress
from edge_agent.progress import BAR_COLUMNS, ERASE_LINE, LINE_EVERY_S, ProgressBar, byte_progress_bar, duration_text


class Clock:
    """Stands where time.monotonic does."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_lines_come_early_now_and_then_and_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    bar = ProgressBar(stream)
    bar.start(10)
    for done in range(11, 41):
        clock.now += LINE_EVERY_S / 10
        bar.show(done, 40, f"step {done}")
        bar.show(done, 41, f"step {done} again")  # as an evaluation does while no case ends
    lines = stream.getvalue().splitlines()
    assert lines == [
        "step 13, 27 s to go", "step 23, 17 s to go", "step 33, 7 s to go", "step 40, 30 s"
    ]  # fmt: skip


def test_the_next_work_has_a_time_of_its_own(clock: Clock) -> None:
    stream = io.StringIO()
    bar = ProgressBar(stream)
    for _ in range(2):
        for done in range(1, 5):
            clock.now += 1
            bar.show(done, 4, f"{done}")
    assert stream.getvalue().splitlines() == ["3, 1 s to go", "4, 4 s"] * 2


def test_a_bar_grows_and_a_note_stands_above_it(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: terminal_size((40, 24)))
    stream = Terminal()
    bar = ProgressBar(stream)
    bar.note("before")
    clock.now += 1
    bar.show(1, 2, "one")
    bar.note("between")
    clock.now += 1
    bar.show(2, 2, "two, which is longer than the terminal")
    first, second = f"[{'#' * 12}{'-' * 12}] one, 1 s to go", f"[{'#' * BAR_COLUMNS}] two, which i"
    drawn = f"before\n{ERASE_LINE}{first}"[:-2] + f"{ERASE_LINE}between\n{ERASE_LINE}{second}\n"
    assert stream.getvalue() == drawn and len(second) == 39
    bar.close()
    assert stream.getvalue() == drawn


def test_work_that_ends_early_leaves_the_terminal_s_line(clock: Clock) -> None:
    stream = Terminal()
    bar = ProgressBar(stream)
    clock.now += 1
    bar.show(1, 2, "one")
    bar.close()
    assert stream.getvalue().endswith("to go\n")


@pytest.mark.parametrize(("seconds", "said"), [(1.0, "model.gguf: 100% of 3.0 MB, 3 s\n"), (0.1, "")])
def test_bytes_are_counted_and_what_is_quick_says_nothing(
    clock: Clock, capsys: pytest.CaptureFixture[str], seconds: float, said: str
) -> None:
    with byte_progress_bar("model.gguf", 3_000_000) as add:
        for _ in range(3):
            clock.now += seconds
            add(1_000_000)
    assert capsys.readouterr().err == said


def test_durations_have_a_person_s_unit() -> None:
    texts = [duration_text(seconds) for seconds in (4.4, 89, 90, 5399, 7200)]
    assert texts == ["4 s", "89 s", "2 min", "90 min", "2.0 h"]
