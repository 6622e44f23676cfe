"""Import modules in a process of their own, and say which do not: python -m edge_agent.box.module_imports NAME …

Some packages of drivers load native code, or leave files where they are imported (lgpio), so that no process of ours
does it to try.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable

TIMEOUT_S = 60.0
_MODULE = "edge_agent.box.module_imports"


def import_problems(modules: Iterable[str]) -> dict[str, str]:
    """Return why modules cannot be imported, by module; those that can are left out."""
    return {name: problem for name in modules if (problem := _problem_of(name))}


def _problem_of(module: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-m", _MODULE, module],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it was not imported within {TIMEOUT_S:g} s"
    lines = done.stdout.decode(errors="replace").splitlines()
    told = next((line for line in reversed(lines) if line.startswith("{")), "")
    return str(json.loads(told)["problem"]) if told else f"importing it ended with {done.returncode}"


def main() -> None:
    """Print why a module cannot be imported, or ""."""
    problem = ""
    try:
        importlib.import_module(sys.argv[1])
    except Exception as error:  # noqa: BLE001 - a package of others may raise anything
        problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
    print(json.dumps({"problem": problem}))


if __name__ == "__main__":
    main()
