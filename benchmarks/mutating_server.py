"""A web server on the loopback address that serves a folder, and answers wrongly for one of its files."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from random import Random
from urllib.parse import unquote

from benchmarks.loopback_server import LoopbackServer
from benchmarks.mutations import damaged_bytes, damaged_json

ENDLESS_BYTES = 64 << 20  # so that who reads on for ever is seen, and comes to an end
STATUSES = (204, 206, 300, 304, 400, 401, 403, 404, 405, 408, 410, 413, 416, 418, 429, 500, 502, 503, 504, 599, 999)
PLACES = ("/", "//", "file:///etc/passwd", "http://[", "ftp://127.0.0.1/", "http://127.0.0.1:1/", "http://\u00e9.x.\u00e9/",
          "?again", "http://a..b/", "http://" + "a" * 300 + "/", "http://127.0.0.1:99999/")  # fmt: skip
LENGTHS = ("0", "1", "-1", "99999999", "x", "1, 2", "1" * 5000, "")
Answer = Callable[[bytes], Iterator[bytes]]


class MutatingServer(LoopbackServer):
    """Serves a folder; `asked` are the files that were asked for, by their path in it."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self._attacked, self._answer = "", _plain
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                name = unquote(self.path.partition("?")[0]).lstrip("/")
                outer.asked.append(name)
                path = folder / name
                body = path.read_bytes() if path.is_file() else None
                if body is None and name != outer._attacked:
                    self.send_error(404)
                    return
                with suppress(OSError):  # the other side has enough
                    for part in outer._answer(body or b"{}") if name == outer._attacked else _plain(body or b""):
                        self.wfile.write(part)

        super().__init__(Handler)

    def attack(self, name: str, draw: Random) -> str:
        """Answer wrongly for a file from now on; return in words how."""
        kind = draw.choice(list(_KINDS))
        self._attacked, self._answer = name, lambda body: _KINDS[kind](body, Random(seed))
        seed = draw.random()
        return kind

    def forget(self) -> None:
        """Answer as one should from now on."""
        self._attacked = ""


def _response(body: bytes, status: int = 200, length: str | None = None, more: str = "") -> bytes:
    size = f"Content-Length: {len(body) if length is None else length}\r\n"
    head = f"HTTP/1.0 {status} Said\r\nContent-Type: application/octet-stream\r\n{size}{more}\r\n"
    return head.encode("latin-1") + body


def _plain(body: bytes) -> Iterator[bytes]:
    yield _response(body)


def _head(body: bytes, draw: Random) -> Iterator[bytes]:
    head, _, _ = _response(body).partition(b"\r\n\r\n")
    yield damaged_bytes(head, draw)[1] + b"\r\n\r\n" + body


def _endless(body: bytes, draw: Random) -> Iterator[bytes]:
    yield b"HTTP/1.0 200 Said\r\n\r\n" + body
    for _ in range(ENDLESS_BYTES >> 16):
        yield draw.choice((b" ", b"x", b"\0")) * (1 << 16)


def _many_headers(body: bytes, draw: Random) -> Iterator[bytes]:
    yield _response(body, more="".join(f"X-{number}: {'x' * draw.choice((1, 70_000))}\r\n" for number in range(200)))


def _chunked(body: bytes, draw: Random) -> Iterator[bytes]:
    size = draw.choice((b"x", b"-1", b"ffffffffffffffffffff", b"", b"%x" % len(body), b"1"))
    yield b"HTTP/1.1 200 Said\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\n" + body + b"\r\n0\r\n\r\n"


_KINDS: dict[str, Callable[[bytes, Random], Iterator[bytes]]] = {
    "a damaged head": _head,
    "a damaged body": lambda body, draw: iter([_response(damaged_bytes(body, draw)[1])]),
    "a damaged body of JSON": lambda body, draw: iter(
        [_response((damaged_json if body.startswith(b'{\n "sign') else damaged_bytes)(body, draw)[1])]
    ),
    "a body that is cut": lambda body, draw: iter([_response(body)[: -draw.randint(1, len(body) or 1)]]),
    "a wrong length": lambda body, draw: iter([_response(body, length=draw.choice(LENGTHS))]),
    "another status": lambda body, draw: iter([_response(body, draw.choice(STATUSES))]),
    "to be asked again much later": lambda body, draw: iter(
        [_response(b"", draw.choice((413, 429, 503)), more=f"Retry-After: {draw.choice((60, 10**9, 10**30))}\r\n")]
    ),
    "elsewhere": lambda body, draw: iter(
        [_response(b"", draw.choice((301, 302, 303, 307, 308)), more=f"Location: {draw.choice(PLACES)}\r\n")]
    ),
    "packed": lambda body, draw: iter([_response(gzip.compress(body, mtime=0), more="Content-Encoding: gzip\r\n")]),
    "said to be packed": lambda body, draw: iter(
        [_response(body, more=f"Content-Encoding: {draw.choice(('gzip', 'deflate', 'br', 'zstd', 'x'))}\r\n")]
    ),
    "a bomb": lambda body, draw: iter([_response(_BOMB, more="Content-Encoding: gzip\r\n")]),
    "endless": _endless,
    "nothing": lambda body, draw: iter([]),
    "many headers": _many_headers,
    "chunks": _chunked,
}  # fmt: skip
_BOMB = gzip.compress(bytes(ENDLESS_BYTES), mtime=0)
