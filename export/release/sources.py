"""Where a box reads a repository: a folder (a USB stick, a share) or a web server. Nothing read here is trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import urllib3
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface
from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

from devices.errors import UnavailableError, UsageError
from export.release.layout import METADATA

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30  # without a byte
_NOT_FOUND = 404


class Source(Protocol):
    """A repository to read."""

    @property
    def url(self) -> str:
        """Where it begins, with a slash at its end."""
        ...

    @property
    def fetcher(self) -> FetcherInterface:
        """What the Update Framework's client reads it by."""
        ...

    def read(self, path: str, offset: int) -> Iterator[bytes]:
        """Yield a file's bytes from an offset on. Raises UnavailableError if it cannot be read."""
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


@dataclass(frozen=True)
class WebSource:
    """A repository on a web server. `url` ends with a slash."""

    url: str

    @property
    def fetcher(self) -> FetcherInterface:
        """Urllib3's, which knows proxies by their environment variables."""
        return Urllib3Fetcher(socket_timeout=TIMEOUT_S, app_user_agent="edgewright")

    def read(self, path: str, offset: int) -> Iterator[bytes]:
        """Yield a file's bytes from an offset on; a server without ranges is read from the start."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            response = urllib3.request(
                "GET", self.url + path, headers=headers, preload_content=False, timeout=urllib3.Timeout(TIMEOUT_S)
            )
            if response.status not in {200, 206}:
                raise UnavailableError(
                    f"{self.url}{path}: HTTP status {response.status}", hint="is the repository whole?"
                )
            skip = offset if response.status == 200 else 0
            for chunk in response.stream(CHUNK_BYTES):
                kept, skip = chunk[skip:], max(0, skip - len(chunk))
                if kept:
                    yield kept
        except urllib3.exceptions.HTTPError as error:
            hint = "what came is kept; the same command goes on from there"
            raise UnavailableError(f"{self.url}{path}: {error}", hint=hint) from error


@dataclass(frozen=True)
class FolderSource:
    """A repository in a folder."""

    folder: Path

    @property
    def url(self) -> str:
        """A URL that only the fetcher here knows."""
        return "folder:///"

    @property
    def fetcher(self) -> FetcherInterface:
        """Reads the files of the folder."""
        return _FolderFetcher(self.folder)

    def read(self, path: str, offset: int) -> Iterator[bytes]:
        """Yield a file's bytes from an offset on."""
        try:
            with (self.folder / path).open("rb") as file:
                file.seek(offset)
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            hint = "what came is kept; the same command goes on from there"
            raise UnavailableError(f"{self.folder / path}: {error.strerror}", hint=hint) from error


class _FolderFetcher(FetcherInterface):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._folder / unquote(urlsplit(url).path).lstrip("/")
        if not path.is_file():
            raise DownloadHTTPError(f"{path} is not there", _NOT_FOUND)
        return self._chunks(path)

    def _chunks(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
