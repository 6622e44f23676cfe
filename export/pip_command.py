"""pip of this Python, as a command."""

from __future__ import annotations

import subprocess
import sys


def pip_problem(verb: str, *words: str) -> str:
    """Run pip; return why it failed, in its own words, or "" if it did not."""
    options = ["--quiet", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", verb, *options, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    return (errors or done.stderr.splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ")
