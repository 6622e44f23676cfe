"""Export of trained runs of real shapes, all gates on: time, memory and what the gates measured.

    python -m benchmarks.export_gates runs/shapes/llama-3.2-3b runs/shapes/llama-3-8b

Each folder has `base` and runs, as benchmarks.train_shapes --keep leaves them. Weights are random, so that replies do
not end and rounding changes what is said: those limits are open, figures are reported. The Hugging Face side, which
measures the importance matrix too, is on the GPU if there is one; llama.cpp's is on the CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.export import run
from benchmarks.runs import machine_with_gpu, save
from edge_agent.engine.machine import installed_versions

OPEN_GATES = ("endings=0", "quant_kl=20", "call_kl=20", "call_top1=0")
QUANTS = "Q8_0,Q4_K_M"
RUN = "ours-packed"  # of its variants


def measure(folder: Path, scratch: Path) -> dict[str, Any]:
    """Return the figures of one export."""
    with tempfile.TemporaryDirectory(dir=scratch) as text:
        out = Path(text) / "bundle"
        command = [sys.executable, "-m", "edgewright", "export", str(folder / RUN), "--base", str(folder / "base"),
                   "--quant", QUANTS, "--tasks", "0", "--out", str(out)]  # fmt: skip
        for gate in OPEN_GATES:
            command += ["--gate", gate]
        started_s = time.monotonic()
        memory_mb = run(command)
        seconds = time.monotonic() - started_s
        export = json.loads((out / "export.json").read_text(encoding="utf-8"))
        return {"seconds": round(seconds, 1), "memory_mb": round(memory_mb), "gates": export["gates"],
                "file_mb": round((out / "model.gguf").stat().st_size / 1e6)}  # fmt: skip


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result: dict[str, Any] = {
        "command": "python -m benchmarks.export_gates " + " ".join(folder.name for folder in given.folders),
        "machine": machine_with_gpu(),
        "versions": installed_versions(),
        "quants": QUANTS,
        "shapes": {},
    }
    for folder in given.folders:
        result["shapes"][folder.name] = measure(folder, given.scratch)
        print(folder.name, result["shapes"][folder.name], file=sys.stderr, flush=True)
    save(result, given.out)
    print(json.dumps(result["shapes"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
