"""How simulated peers without a network of their own are reached: questions and answers in JSON over a Unix socket.

Both are one line each; a connection carries one question. Who may open the socket's file may ask.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ANSWER_S = 10.0
LONGEST_ADDRESS = 103  # bytes. Source: sun_path is 104 bytes on macOS and 108 on Linux, with a zero at the end


def ask(path: Path, question: Any) -> Any:
    """Return the answer to a question.

    Raises:
        OSError: nothing listens there or answers in time, or the answer is an error of its own.
    """
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(ANSWER_S)
        with _address(path) as address:
            link.connect(address)
        link.sendall(json.dumps(question).encode() + b"\n")
        with link.makefile("rb") as lines:
            line = lines.readline()
    if not line:
        raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    answer = json.loads(line)
    if "errno" in answer:
        raise OSError(answer["errno"], answer["text"])
    return answer["answer"]


class PeerServer:
    """Answers questions at a path, each connection in a thread of its own.

    Args:
        path: where the socket's file will be.
        answer: returns the answer to a question; an OSError that it raises is raised again by `ask`.
    """

    def __init__(self, path: Path, answer: Callable[[Any], Any]) -> None:
        self.path, self._answer = path, answer
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen. Raises OSError if another listens there, or a file is there that is no socket."""
        if self.path.is_socket() and not is_up(self.path):
            self.path.unlink()  # left by one that was killed
        answer = self._answer

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                line = self.rfile.readline()
                if not line:
                    return  # somebody only looked whether we are up
                try:
                    told = {"answer": answer(json.loads(line))}
                except OSError as error:
                    told = {"errno": error.errno, "text": error.strerror}
                self.wfile.write(json.dumps(told).encode() + b"\n")

        with _address(self.path) as address:
            self._server = _Server(address, Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name=str(self.path), daemon=True).start()

    def stop(self) -> None:
        """Listen no more, and take the socket's file away."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            self.path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing of one that asked and did not wait."""


def is_up(path: Path) -> bool:
    """Return whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as probe, _address(path) as address:
        return probe.connect_ex(address) == 0


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """Give a socket's path; one too long for an address leads through its folder, as Linux shows open ones."""
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
