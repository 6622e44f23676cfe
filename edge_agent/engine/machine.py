"""What matters for speed about this machine, and the versions of what runs on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

VERSIONS_OF = ("llama-cpp-python", "llguidance", "torch", "transformers", "peft", "trl", "gguf")


def this_machine() -> dict[str, str]:
    """Return what matters for speed about this machine."""
    facts = {"system": platform.platform(), "cores": str(os.cpu_count() or "unknown")}
    processor = _first_value("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    memory = _first_value("/proc/meminfo", "MemTotal").removesuffix(" kB")
    facts |= {"processor": processor} | ({"memory": f"{int(memory) / 2**20:.1f} GiB"} if memory.isdigit() else {})
    return facts


def _first_value(path: str, key: str) -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def installed_versions(packages: Iterable[str] = VERSIONS_OF) -> dict[str, str]:
    """Return Python's version and those of the packages that are installed, without importing them."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
