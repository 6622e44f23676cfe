"""A repository behind nginx: pulled, gone on with in the middle of a file, and not packed on the way."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.errors import UnavailableError
from edge_agent.bundle import MODEL, open_bundle
from export.flash.flash import STAGING
from export.release.layout import BLOBS, TARGETS
from export.release.pull import pull
from export.release.sources import open_source
from tests.export.release.test_release import World
from tests.ports import LONG_S, free_port

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="needs nginx (scripts/test_packages.sh)"),
    pytest.mark.allow_hosts(["127.0.0.1"]),
]
HALF = 1000  # bytes of the model that are there already
CONFIG = """
{user}
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    log_format short '$request_uri $status $http_range';
    access_log {folder}/access.log short;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    gzip on; gzip_types *; gzip_min_length 1;
    server {{ listen 127.0.0.1:{port}; root {repo}; }}
}}
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.publish(0)
    return made


@pytest.fixture
def url(world: World) -> Iterator[str]:
    folder, port = world.folder / "nginx", free_port()
    folder.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers may not read pytest's folders
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, port=port, repo=world.repo, user=user))
    with subprocess.Popen([NGINX or "", "-e", str(folder / "error.log"), "-c", str(config)]) as process:
        try:
            wait_for(port)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


def wait_for(port: int) -> None:
    """Return once somebody listens on a port."""
    end_s = time.monotonic() + LONG_S
    while True:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        assert time.monotonic() < end_s, "nginx does not listen"


def test_a_box_pulls_and_goes_on_where_it_was(world: World, url: str) -> None:
    manifest = open_bundle(world.bundles[0]).manifest
    folder = world.box / STAGING / manifest.id
    folder.mkdir(parents=True)
    (folder / f"{MODEL}.part").write_bytes((world.bundles[0] / MODEL).read_bytes()[:HALF])
    report = pull(world.box, open_source(url))
    assert report.state == "installed" and world.has(0)
    sizes = {name: entry.bytes for name, entry in manifest.files.items()}
    assert report.fetched_bytes == sum(sizes.values()) - HALF
    asked = (world.folder / "nginx" / "access.log").read_text().splitlines()
    assert f"/{TARGETS}/{BLOBS}/{manifest.files[MODEL].sha256} 206 bytes={HALF}-" in asked
    world.publish(1)
    assert pull(world.box, open_source(url)).state == "installed" and world.has(1)


def test_a_file_that_is_missing_there_is_named(world: World, url: str) -> None:
    shutil.rmtree(world.repo / TARGETS / BLOBS)
    with pytest.raises(UnavailableError, match=f"{TARGETS}/{BLOBS}/[0-9a-f]+: HTTP status 404"):
        pull(world.box, open_source(url))
