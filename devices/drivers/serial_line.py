"""A serial line without hardware: two pseudo terminals, each end's output being the other's input."""

from __future__ import annotations

import os
import pty
import selectors
import threading
import tty
from pathlib import Path


class SerialLine:
    """Opens at once; `near` is a link made for the driver, `far` the device's end. Close it when done."""

    def __init__(self, near: Path) -> None:
        """Args: near: a path that does not exist yet. Raises OSError if it does."""
        ends = [pty.openpty() for _ in range(2)]
        self._masters = [master for master, _ in ends]
        self._slaves = [slave for _, slave in ends]  # kept open, so that a line does not hang up when a client leaves
        for slave in self._slaves:
            tty.setraw(slave)
        self.near, self.far = near, os.ttyname(self._slaves[1])
        self._wake_out, self._wake_in = os.pipe()
        self._thread = threading.Thread(target=self._carry, name=f"line {near}", daemon=True)
        near.symlink_to(os.ttyname(self._slaves[0]))
        self._thread.start()

    def close(self) -> None:
        """Take the line away."""
        self.near.unlink(missing_ok=True)
        os.write(self._wake_in, b".")
        self._thread.join()
        for end in (*self._masters, *self._slaves, self._wake_out, self._wake_in):
            os.close(end)

    def _carry(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_out, selectors.EVENT_READ)
            for source, target in (self._masters, self._masters[::-1]):
                selector.register(source, selectors.EVENT_READ, target)
            while True:
                for key, _ in selector.select():
                    if key.data is None:
                        return
                    os.write(key.data, os.read(key.fd, 4096))
