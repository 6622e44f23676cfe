"""A confined process can compute and read, and nothing else."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}, reason="no filter for this system"
)
TRY = """
import ctypes, os, platform, signal, socket, subprocess, sys, tempfile, threading
from edge_agent.engine.sandbox import enter_sandbox
folder = sys.argv[1]
open(folder + "/before", "w").write("x")
one, other = socket.socketpair()
parent, libc = os.pidfd_open(os.getppid()), ctypes.CDLL(None, use_errno=True)


def tgkill(process):
    if libc.syscall(234 if platform.machine() == "x86_64" else 131, process, process, 0) != 0:
        raise OSError(ctypes.get_errno(), "tgkill")


tgkill(os.getppid())
assert enter_sandbox()
tgkill(os.getpid())  # its own threads, as abort does
one.send(b"still"); assert other.recv(9) == b"still"
assert open(folder + "/before").read() == "x"
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
tries = {
    "socket": lambda: socket.socket(),
    "write": lambda: open(folder + "/after", "w"),
    "append": lambda: open(folder + "/before", "a"),
    "update": lambda: os.open(folder + "/before", os.O_RDWR),
    "rename": lambda: os.rename(folder + "/before", folder + "/after"),
    "remove": lambda: os.remove(folder + "/before"),
    "program": lambda: os.execv("/bin/true", ["true"]),
    "signal": lambda: os.kill(os.getppid(), 0),
    "signal by descriptor": lambda: signal.pidfd_send_signal(parent, 0),
    "signal to a thread": lambda: tgkill(os.getppid()),
}
for name, attempt in tries.items():
    try:
        attempt()
    except PermissionError:
        continue
    sys.exit(f"{name} was let through")
"""


def test_it_opens_no_socket_writes_no_file_and_starts_no_program(tmp_path: object) -> None:
    done = subprocess.run([sys.executable, "-c", TRY, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
