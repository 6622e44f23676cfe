"""What a web server or a stick may answer: each has its line, and nobody waits for ever."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3.util.retry

from devices.errors import UnavailableError
from export.release import sources
from export.release.layout import METADATA
from export.release.pull import pull
from export.release.sources import FolderSource, NotThere, WebSource, open_source
from tests.export.release.test_release import World

HOST = "127.0.0.1"
web = pytest.mark.allow_hosts([HOST])


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """Answer each request as it is written here, the last answer again and again; yields the URL."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.wfile.write(left.pop(0) if len(left) > 1 else left[0])

    server = ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def head(*lines: str, status: int = 200) -> bytes:
    return "\r\n".join([f"HTTP/1.0 {status} Said", *lines, "", ""]).encode()


@web
def test_what_is_read_is_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    assert b"".join(FolderSource(tmp_path).read("x", 4)) == b"456789"
    with answering(head("Content-Length: 10") + b"0123456789") as url:  # without ranges
        assert b"".join(WebSource(url).read("x", 4)) == b"456789"
    with answering(head("Content-Length: 6", status=206) + b"456789") as url:
        assert b"".join(WebSource(url).read("x", 4)) == b"456789"


@web
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (head("Content-Length: 10") + b"012", "IncompleteRead"),
        (head("Transfer-Encoding: chunked") + b"zz\r\n", "."),
        (head("Location: http://[", status=302), "Invalid IPv6 URL"),
        (head("Location: file:///etc/passwd", status=302), "No host"),
        (head(status=500), "HTTP status 500"),
        (b"", "Remote end closed"),
    ],
)
def test_a_bad_answer_is_one_line(answer: bytes, said: str, tmp_path: Path) -> None:
    with answering(answer) as url, pytest.raises(UnavailableError, match=said):
        list(WebSource(url).read("x"))
    world = World(tmp_path)
    with answering(answer) as url, pytest.raises(UnavailableError):  # the Update Framework's client reads it there
        pull(world.box, open_source(url))


@web
def test_a_server_that_is_busy_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib3.util.retry.time, "sleep", lambda _: pytest.fail("it waits"))
    with (
        answering(head("Retry-After: 1000", status=503)) as url,
        pytest.raises(UnavailableError, match="HTTP status 503"),
    ):
        list(WebSource(url).read("x"))


@web
def test_a_server_that_hardly_sends_anything_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 2 * sources.TIMEOUT_S))
    monkeypatch.setattr(sources, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with (
        answering(head("Content-Length: 10") + b"0123456789") as url,
        pytest.raises(UnavailableError, match="too slow"),
    ):
        list(WebSource(url).read("x"))


@web
def test_what_a_server_says_is_packed_is_taken_as_it_comes() -> None:
    with answering(head("Content-Length: 3", "Content-Encoding: gzip") + b"abc") as url:
        assert b"".join(WebSource(url).read("x")) == b"abc"


@web
def test_the_environment_names_a_proxy_for_all_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(head("Content-Length: 3") + b"abc") as url:
        monkeypatch.setenv("http_proxy", url)
        assert b"".join(WebSource("http://updates.invalid/").read("x")) == b"abc"


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "endless", "gone"):
        with pytest.raises(NotThere, match=f"{name}: no file is there"):
            list(FolderSource(tmp_path).read(name))
    with pytest.raises(UnavailableError, match="too long"):
        list(FolderSource(tmp_path).read("x" * 300))


def test_a_stick_that_is_pulled_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, plain = World(tmp_path), Path.open

    def broken(path: Path, *given: Any, **named: Any) -> Any:
        if path.is_relative_to(world.repo):
            raise OSError(5, "Input/output error")
        return plain(path, *given, **named)

    monkeypatch.setattr(Path, "open", broken)
    with pytest.raises(UnavailableError, match=rf"{METADATA}/timestamp\.json: Input/output error"):
        pull(world.box, FolderSource(world.repo))
