"""Whether llama.cpp loads on this machine, and what it was compiled for: found out in a process of its own.

A build for another processor ends a process by SIGILL, so nothing of it is loaded here.

    python -m edge_agent.engine.llama_cpp_probe [MODEL.gguf]

prints {"version", "features", "problem", "architecture"} as JSON; `probe` starts that and reads it.

Does not guard against: a build whose wrong instructions come only when it evaluates; `edgewright selftest` does.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 120.0  # a cold disk has to read a vocabulary and 20 MB of libraries
_MODULE = "edge_agent.engine.llama_cpp_probe"


@dataclass(frozen=True)
class Probe:
    """What was found.

    Attributes:
        version: of llama-cpp-python, or "" if it does not load.
        features: what llama.cpp calls the instruction sets that it was compiled for, such as AVX2 and DOTPROD.
        problem: why it does not load, or "".
        model_problem: why it does not read the model's vocabulary, or "".
    """

    version: str = ""
    features: tuple[str, ...] = ()
    problem: str = ""
    model_problem: str = ""


def probe(model: Path | None = None) -> Probe:
    """Return whether llama.cpp and llguidance load here, and whether they read a model's vocabulary."""
    command = [sys.executable, "-m", _MODULE, *([str(model)] if model else [])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=TIMEOUT_S, env=environment, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return Probe(problem=f"it had not loaded after {TIMEOUT_S:g} s")
    lines = done.stdout.decode(errors="replace").splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    found = Probe(told[0]["version"], tuple(told[0]["features"]), told[0]["problem"]) if told else Probe()
    if len(told) == 2:
        return Probe(found.version, found.features, model_problem=told[1]["problem"])
    if found.problem:
        return found
    how = f"it ended with {_name_of(done.returncode)}"
    if not told:
        return Probe(problem=how)
    return Probe(found.version, found.features, model_problem=how if model else "")


def _name_of(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"


def features_in(system_info: str) -> list[str]:
    """Return what is 1 in what llama_print_system_info says of the processor."""
    return re.findall(r"(\w+) = 1\b", system_info)


def main() -> None:
    """Print what was found, first of llama.cpp and then of the model; the process may die in between."""
    told = {"version": "", "features": [], "problem": ""}
    try:
        import llama_cpp
        import llguidance

        del llguidance
        told["version"] = llama_cpp.__version__
        told["features"] = features_in(llama_cpp.llama_print_system_info().decode(errors="replace"))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # llama_cpp raises RuntimeError for a library
        told["problem"] = " ".join(str(error).split()) or type(error).__name__
    print(json.dumps(told), flush=True)
    if len(sys.argv) > 1 and not told["problem"]:
        from edge_agent.engine.llama_cpp_model import vocabulary_problem

        print(json.dumps({"problem": vocabulary_problem(Path(sys.argv[1]))}), flush=True)


if __name__ == "__main__":
    main()
