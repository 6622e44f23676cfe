"""Free ports for peers, and sites on them."""

from __future__ import annotations

import socket
from pathlib import Path

from devices.site import site_path


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def greenhouse_file(folder: Path, timeout_s: float = 1.0) -> Path:
    """Write the greenhouse's site file with its PLC on a free port; return its path."""
    text, file = site_path("greenhouse").read_text(encoding="utf-8"), folder / "greenhouse.yaml"
    for old, new in (("port: 5020", f"port: {free_port()}"), ("timeout_s: 1.0", f"timeout_s: {timeout_s}")):
        assert old in text
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
    return file
