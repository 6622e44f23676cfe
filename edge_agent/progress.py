"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TextIO

BAR_EVERY_S, LINE_EVERY_S = 0.1, 10.0
BAR_COLUMNS = 24
QUICK_S = 2.0  # work that is over sooner, and of which nothing was shown, needs no line at its end
UNITS_BEFORE_ESTIMATE = 3  # the first ones also pay for memory and caches
ERASE_LINE = "\r\x1b[K"

# A bar for a file that is written: it is opened with a label and a size in bytes, and told of more bytes.
Progress = Callable[[int], object]
ByteProgressBar = Callable[[str, int], AbstractContextManager[Progress]]


class ProgressBar:
    """Shows how much of some work is done, and how long the rest takes; `note` prints a line between."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._is_drawn = False
        self.start()

    def start(self, done: int = 0) -> None:
        """Begin a piece of work, of which so much is done already; the next begins by itself when one ends."""
        self._first = self._last = done
        self._is_shown = False
        self._started_s = self._shown_s = time.monotonic()

    def note(self, line: str) -> None:
        """Print a line of its own, in place of the bar if there is one, which is drawn again below."""
        print(f"{ERASE_LINE if self._is_drawn else ''}{line}", file=self._stream, flush=True)
        self._is_drawn = False

    def show(self, done: int, total: int, text: str) -> None:
        """Show that so much of the total is done, in words too; not at every call, but always the end."""
        now, more = time.monotonic(), done - self._first
        is_due = now - self._shown_s >= (BAR_EVERY_S if self._is_terminal else LINE_EVERY_S)
        is_first_estimate = more == UNITS_BEFORE_ESTIMATE and done != self._last
        self._last = done
        if not (done == total or is_due or is_first_estimate):
            return
        if done == total and now - self._started_s < QUICK_S and not self._is_shown:
            self.start()
            return
        self._shown_s, self._is_shown = now, True
        if done == total:
            text += f", {duration_text(now - self._started_s)}"
        elif more:
            text += f", {duration_text((now - self._started_s) / more * (total - done))} to go"
        if self._is_terminal:
            bar = "#" * (BAR_COLUMNS * done // total)
            line = f"[{bar:-<{BAR_COLUMNS}}] {text}"[: shutil.get_terminal_size().columns - 1]
            print(f"{ERASE_LINE}{line}", end="\n" if done == total else "", file=self._stream, flush=True)
            self._is_drawn = done < total
        else:
            self.note(text)
        if done == total:
            self.start()

    def close(self) -> None:
        """Leave the terminal as it should be, if the work ended early."""
        if self._is_drawn:
            print(file=self._stream, flush=True)
            self._is_drawn = False


@contextmanager
def byte_progress_bar(label: str, size_bytes: int) -> Iterator[Progress]:
    """Show how much of a file is written."""
    bar, done = ProgressBar(), 0

    def add(more_bytes: int) -> None:
        nonlocal done
        done += more_bytes
        bar.show(done, size_bytes, f"{label}: {done / size_bytes:.0%} of {size_bytes / 1e6:.1f} MB")

    try:
        yield add
    finally:
        bar.close()


def no_progress_bar(label: str, size_bytes: int) -> AbstractContextManager[Progress]:
    """Show nothing."""
    del label, size_bytes
    return nullcontext(lambda more_bytes: None)


def duration_text(seconds: float) -> str:
    """Return a duration in the unit a person would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
