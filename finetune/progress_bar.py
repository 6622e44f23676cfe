"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

LINE_EVERY_S = 10.0
STEPS_BEFORE_ESTIMATE = 3  # the first steps also pay for memory and caches


class StepProgress:
    """Shows steps out of a total, with loss and speed; `note` prints a line between."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._first = self._total = 0
        self._started_s = self._printed_s = 0.0

    def note(self, line: str) -> None:
        """Print a line of its own, above the bar if there is one."""
        if self._bar is None:
            print(line, file=self._stream, flush=True)
        else:
            self._bar.write(line, file=self._stream)

    def start(self, done: int, total: int) -> None:
        """Begin at step `done` of `total`."""
        self._first, self._total = done, total
        self._started_s = self._printed_s = time.monotonic()
        if self._stream.isatty():
            from tqdm import tqdm  # type: ignore[import-untyped]

            self._bar = tqdm(total=total, initial=done, unit="step", file=self._stream, dynamic_ncols=True)

    def step(self, done: int, loss: float, tokens_per_s: float) -> None:
        """Show that `done` steps are done."""
        now = time.monotonic()
        steps = done - self._first
        left_s = (now - self._started_s) / max(steps, 1) * (self._total - done)
        if steps == STEPS_BEFORE_ESTIMATE and done < self._total:
            self.note(f"about {duration_text(left_s)} to go, {tokens_per_s:,.0f} tokens/s")
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {tokens_per_s:,.0f} tokens/s", refresh=False)
            self._bar.update(done - self._bar.n)
        elif done == self._total or now - self._printed_s >= LINE_EVERY_S:
            self._printed_s = now
            rest = f", {duration_text(left_s)} left" if done < self._total else ""
            self.note(f"step {done}/{self._total}: loss {loss:.4f}, {tokens_per_s:,.0f} tokens/s{rest}")

    def close(self) -> None:
        """Leave the terminal as it should be."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def duration_text(seconds: float) -> str:
    """Return a duration in the unit a person would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
