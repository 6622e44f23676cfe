"""A kit on a real 64-bit ARM instruction set: installed by its own install.sh, and the same tokens as here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent.parent
TOOLS = ("aarch64-linux-gnu-g++", "mmdebstrap", "proot", "qemu-aarch64-static")
missing = [tool for tool in TOOLS if not shutil.which(tool)]


@pytest.mark.slow
@pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")
def test_an_emulated_arm_machine_says_the_same_tokens(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.arm64", "--work", str(tmp_path), "--cases", "5", "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert "aarch64" in found["there"]["system"]
    assert found["cases"] == 5 and found["cases_with_the_same_tokens"] == 5
