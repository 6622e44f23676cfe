"""Free ports for peers, and sites on them."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

from devices.site.site import Site, site_path

FIRST_PORT, PORTS, WORKERS = 20_000, 1_500, 8
LONG_S = 20.0
_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listens on now.

    It is below those that systems give to outgoing connections: a client that tries a dead peer again and again could
    else be given the peer's own port, and hold it when the peer comes back. Each of pytest's workers has ports of its
    own, and none is given twice: whoever asked for one may not listen there yet.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    while True:
        port = FIRST_PORT + worker * PORTS + secrets.randbelow(PORTS)  # tests seed `random`, in all workers alike
        with socket.socket() as probe:
            if port not in _given and probe.connect_ex(("127.0.0.1", port)):
                _given.add(port)
                return port


def greenhouse_file(folder: Path, timeout_s: float = 1.0) -> Path:
    """Write the greenhouse's site file with its PLC on a free port; return its path."""
    text, file = site_path("greenhouse").read_text(encoding="utf-8"), folder / "greenhouse.yaml"
    for old, new in (("port: 5020", f"port: {free_port()}"), ("timeout_s: 1.0", f"timeout_s: {timeout_s}")):
        assert old in text
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
    return file


def patient(site: Site) -> Site:
    """Return a site whose drivers and read-backs wait long: on a busy machine the peers of tests take their time."""
    drivers = {name: one | {"timeout_s": LONG_S} for name, one in site.drivers.items()}
    devices = {}
    for name, device in site.devices.items():
        actions = {key: action.model_copy(update={"settle_s": LONG_S}) for key, action in device.actions.items()}
        devices[name] = device.model_copy(update={"actions": actions})
    return site.model_copy(update={"drivers": drivers, "devices": devices})
