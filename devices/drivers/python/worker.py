"""The process in which one function of a Python file is called: a request as JSON in, what came of it as JSON out.

Run as a script, with the file as its only argument. What the function prints goes to stderr.
"""

from __future__ import annotations

import inspect
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any


def main(file: str) -> None:
    """Read a request from standard input, call the function, and write {"answer"}, {"refused"} or {"failed"}."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # prints of the function are no answer
    request = json.load(sys.stdin)
    json.dump(_called(file, request), out, default=str)
    out.close()


def _called(file: str, request: dict[str, Any]) -> dict[str, Any]:
    sys.path.insert(0, str(Path(file).parent))
    try:
        function = runpy.run_path(file)[request["function"]]
        keyed = {"key": request["key"]} if "key" in inspect.signature(function).parameters else {}
    except Exception as error:  # noqa: BLE001 - nothing of it has run
        return {"refused": f"{type(error).__name__}: {error}"}
    try:
        return {"answer": function(**request["arguments"], **keyed)}
    except ValueError as error:
        return {"refused": str(error) or "ValueError"}
    except Exception as error:  # noqa: BLE001 - an owner's code may raise anything
        return {"failed": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main(sys.argv[1])
