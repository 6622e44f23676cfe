"""Where a box reads a repository: a folder (a USB stick, a share) or a web server. Nothing read here is trusted.

Does not guard against: a web server that sends slowly, yet faster than SLOWEST_BYTES_S.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface

from devices.errors import UnavailableError, UsageError
from export.release.layout import METADATA

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30  # without a byte
SLOWEST_BYTES_S = 100  # on average, of a file that takes longer than TIMEOUT_S: no line is slower, a trap is
RETRIES = 3  # of a connection that breaks; at once, whatever time a server asks to wait
_NOT_FOUND = 404
_NOT_THERE = {403, _NOT_FOUND}
_KEPT = "what came is kept; the same command goes on from there"


class NotThere(UnavailableError):
    """A repository does not have the file."""


class Source(Protocol):
    """A repository to read."""

    @property
    def url(self) -> str:
        """Where it begins, with a slash at its end."""
        ...

    def read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """Yield a file's bytes from an offset on. Raises NotThere, or UnavailableError if it cannot be read."""
        ...


def open_source(address: str) -> Source:
    """Return a source by its address. Raises UsageError if it is neither a folder nor a URL of http or https."""
    if urlsplit(address).scheme in {"http", "https"}:
        return WebSource(address.rstrip("/") + "/")
    if not Path(address).is_dir():
        raise UsageError(f"{address} is no folder", hint="is the stick mounted? or give an address with https://")
    if not (Path(address) / METADATA).is_dir():
        raise UsageError(
            f"{address} is no repository", hint="it has no folder metadata; `edgewright repo init` makes one"
        )
    return FolderSource(Path(address))


class _KeyTwice(Exception):
    """An object of JSON has a key more than once."""


def _unique(pairs: list[tuple[str, Any]]) -> None:
    seen = set[str]()
    for key, _ in pairs:
        if key in seen:
            raise _KeyTwice(f"the key {key[:40]!r} stands there twice")
        seen.add(key)


class Fetcher(FetcherInterface):
    """How the Update Framework's client reads a source; what is not there ends its search for newer roots."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return a metadata file. Raises DeserializationError where a key stands in it twice: readers would differ."""
        data = super().download_bytes(url, max_length)
        try:
            json.loads(data, object_pairs_hook=_unique)
        except _KeyTwice as error:
            raise DeserializationError(f"{url.removeprefix(self._source.url)}: {error}") from error
        except (ValueError, RecursionError):
            pass  # no JSON: the client says so
        return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield from self._source.read(url.removeprefix(self._source.url))
        except NotThere as error:
            raise DownloadHTTPError(str(error), _NOT_FOUND) from error


@dataclass(frozen=True)
class WebSource:
    """A repository on a web server. `url` ends with a slash."""

    url: str

    @cached_property
    def _pool(self) -> urllib3.PoolManager:
        """The connections, through the proxy that the environment names, if it does."""
        parts, proxies = urlsplit(self.url), getproxies()
        proxy = None if proxy_bypass(parts.hostname or "") else proxies.get(parts.scheme, proxies.get("all"))
        return urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()

    def read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """Yield a file's bytes from an offset on; a server without ranges is read from the start."""
        headers = {"User-Agent": "edgewright", "Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={offset}-"} if offset else {}
        try:
            with self._pool.request(
                "GET",
                self.url + path,
                headers=headers,
                preload_content=False,
                decode_content=False,
                retries=urllib3.Retry(RETRIES, respect_retry_after_header=False),
                timeout=urllib3.Timeout(TIMEOUT_S),
            ) as response:
                if response.status not in {200, 206}:
                    kind = NotThere if response.status in _NOT_THERE else UnavailableError
                    raise kind(f"{self.url}{path}: HTTP status {response.status}", hint="is the repository whole?")
                skip = offset if response.status == 200 else 0
                for chunk in self._paced(response):
                    kept, skip = chunk[skip:], max(0, skip - len(chunk))
                    if kept:
                        yield kept
        except (urllib3.exceptions.HTTPError, ValueError) as error:  # ValueError: sent on to what is no address
            raise UnavailableError(f"{self.url}{path}: {error}", hint=_KEPT) from error

    def _paced(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        """Yield what comes, as it comes. Raises UnavailableError if that is hardly anything."""
        started_s, size_bytes = time.monotonic(), 0
        while chunk := response.read1(CHUNK_BYTES):
            size_bytes += len(chunk)
            took_s = time.monotonic() - started_s
            if took_s > TIMEOUT_S and size_bytes < took_s * SLOWEST_BYTES_S:
                raise UnavailableError(f"{self.url}: {size_bytes} bytes in {took_s:.0f} s are too slow", hint=_KEPT)
            yield chunk


@dataclass(frozen=True)
class FolderSource:
    """A repository in a folder."""

    folder: Path

    @property
    def url(self) -> str:
        """A URL that is only taken off again."""
        return "folder:///"

    def read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """Yield a file's bytes from an offset on."""
        try:
            if not (self.folder / path).is_file():  # nor is a pipe, on which a reader would wait for ever
                raise NotThere(f"{self.folder / path}: no file is there", hint="is the repository whole?")
            with (self.folder / path).open("rb") as file:
                file.seek(offset)
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise UnavailableError(f"{self.folder / path}: {error.strerror}", hint=_KEPT) from error
