"""metrics.jsonl of a run: a line for every step, and one for every measurement on held-out rows.

The same numbers go to TensorBoard, if a run asks for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HELD_OUT_LOSS = "held_out_loss"


class Metrics:
    """Appends lines to a file. A line has the step it belongs to, and the names and numbers that were given."""

    def __init__(self, path: Path, step: int, board: Path | None = None) -> None:
        """Read the lines that an interrupted run wrote up to its checkpoint at `step`; later ones come again.

        Args:
            path: the file.
            step: of the checkpoint that the run goes on from, or 0.
            board: a folder for TensorBoard's event files.
        """
        self._path, self._step, self._board = path, step, board
        self._writer: Any = None
        self._is_written = False
        self.lines = [line for line in _read(path) if line["step"] <= step]

    def write(self) -> None:
        """Write the lines, and from now on every one that is added; of several processes, one does."""
        self._path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
        self._is_written = True
        if self._board:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(self._board), purge_step=self._step + 1)

    def add(self, step: int, **numbers: float) -> None:
        """Append a line."""
        line = {"step": step, **{name: float(f"{number:.6g}") for name, number in numbers.items()}}
        self.lines.append(line)
        if self._is_written:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if self._writer:
            for name, number in numbers.items():
                self._writer.add_scalar(name, number, step)

    def close(self) -> None:
        """Write out what TensorBoard's writer still holds."""
        if self._writer:
            self._writer.close()

    def series(self, name: str) -> tuple[tuple[int, float], ...]:
        """Return (step, number) of the lines that have a name."""
        return tuple((line["step"], line[name]) for line in self.lines if name in line)


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file; a kill may have left half of one at its end."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]
