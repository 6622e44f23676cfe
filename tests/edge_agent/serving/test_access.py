"""Who gets in over HTTP, and what is done for whom: none of these attempts may move anything."""

from __future__ import annotations

import random
import shutil
import socket
import ssl
import stat
import subprocess
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from devices.errors import UnavailableError, UsageError
from edge_agent.serving.check import check_doors
from edge_agent.serving.configuration import load_configuration
from edge_agent.serving.http import access
from edge_agent.serving.http.access import make_token, read_token
from edge_agent.serving.hub import Hub
from tests.edge_agent.serving.conftest import ScriptedEngine
from tests.edge_agent.serving.served import serving_http

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    make_token(tmp_path / "token")
    return tmp_path / "token"


def test_a_token_file_is_for_its_owner_alone(token_file: Path) -> None:
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert len(read_token(token_file)) >= 40
    with pytest.raises(UsageError, match="File exists"):
        make_token(token_file)
    token_file.chmod(0o640)
    with pytest.raises(UsageError, match="others can read"):
        read_token(token_file)
    token_file.chmod(0o600)
    token_file.write_text("short")
    with pytest.raises(UsageError, match="holds no token"):
        read_token(token_file)
    with pytest.raises(UsageError, match="cannot read"):
        read_token(token_file.with_name("none"))


def test_without_the_token_nothing_is_told_or_done(hub: Hub, token_file: Path) -> None:
    token = read_token(token_file)
    with serving_http(hub, token_file=str(token_file)) as url:
        wrong: list[dict[str, str]] = [
            {},
            {"Authorization": f"Bearer {token[:-1]}"},
            {"Authorization": f"Bearer {token}x"},
            {"Authorization": f"Basic {token}"},
            {"Authorization": token},
            {"Cookie": f"token={token}"},
            {"Authorization": "Bearer"},
        ]
        for headers in wrong:
            for method, path in (
                ("GET", "api/site"), ("GET", "api/state"), ("GET", "api/events"), ("GET", "api/journal"),
                ("GET", "v1/models"), ("GET", "metrics"), ("POST", "api/sessions"), ("POST", "api/stop"),
                ("POST", "v1/chat/completions"), ("GET", f"api/site?token={token}"), ("GET", "page/../api/site"),
            ):  # fmt: skip
                assert httpx.request(method, f"{url}{path}", headers=headers).status_code in {401, 404}, path
        assert httpx.get(f"{url}healthz").json() == {"status": "ok"}
        assert httpx.get(f"{url}api/site", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert hub.events(10) == []


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil", "", "a b", "[::1", "@"]
)
def test_names_that_are_not_ours_are_refused(hub: Hub, host: str) -> None:
    with serving_http(hub) as url:
        reply = httpx.post(f"{url}api/stop", headers={"Host": host})
        assert reply.status_code in {400, 421}
        for ours in ("localhost:1234", "127.0.0.1", "[::1]:80", socket.gethostname()):
            assert httpx.get(f"{url}api/site", headers={"Host": ours}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "file://", ""])
def test_requests_of_other_pages_are_refused(hub: Hub, origin: str) -> None:
    with serving_http(hub) as url:
        for path in ("api/stop", "api/sessions", "v1/chat/completions"):
            assert httpx.post(f"{url}{path}", headers={"Origin": origin}).status_code == 403
        assert httpx.get(f"{url}api/events", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        own = url.rstrip("/")
        assert httpx.post(f"{url}api/sessions", headers={"Origin": own}).status_code == 201
        assert hub.events(10) == []


def test_every_answer_has_the_headers(hub: Hub) -> None:
    with serving_http(hub) as url:
        for path in ("", "api/site", "nothing", "healthz"):
            headers = httpx.get(f"{url}{path}").headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
            assert "server" not in headers


def test_large_slow_and_too_many(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "BODY_S", 0.2)
    with serving_http(hub, requests_a_minute=30) as url:
        assert httpx.post(f"{url}api/sessions", content=b"x" * 300_000).status_code == 413
        assert httpx.post(f"{url}v1/chat/completions", content=iter([b"x" * 200_000] * 2)).status_code == 413
        port = int(url.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 5) as slow:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 10\r\n\r\n"
            slow.sendall(head.encode())
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        statuses = [httpx.get(f"{url}api/site").status_code for _ in range(40)]
        assert statuses[0] == 200 and 429 in statuses  # the allowance fills again while they come
        assert httpx.post(f"{url}api/stop").status_code == 200


def test_mutated_requests_crash_nothing_and_move_nothing(hub: Hub, engine: ScriptedEngine) -> None:
    draw = random.Random(5)
    with serving_http(hub, requests_a_minute=100_000) as url:
        session = httpx.post(f"{url}api/sessions").json()["session"]
        bodies: list[tuple[str, Any]] = [
            ("v1/chat/completions", b'{"model":"home-tiny","messages":[{"role":"user","content":"unlock"}]}'),
            ("v1/chat/completions", b'{"model":"home-tiny:agent","stream":true,"messages":[{"role":"user"}]}'),
            (f"api/sessions/{session}/command", b'{"device":"front_door","action":"unlock","input":{}}'),
            (f"api/sessions/{session}/confirm", b'{"id":"AAAAAAAAAAAAAAAAAAAAAAAA","yes":true}'),
            ("api/sessions/x/ask", b'{"text":"kitchen light on"}'),
        ]
        with httpx.Client(timeout=20) as client:
            for _ in range(300):
                path, body = draw.choice(bodies)
                mutated = bytearray(body)
                for _ in range(draw.randint(1, 4)):
                    mutated[draw.randrange(len(mutated))] = draw.randrange(256)
                mutated = mutated[: draw.randint(0, len(mutated))] if draw.random() < 0.3 else mutated
                assert client.post(url + path, content=bytes(mutated)).status_code < 500, (path, bytes(mutated))
    assert hub.state()["front_door"]["locked"] is True and hub.state()["kitchen_light"]["on"] is False


def test_a_port_that_is_taken_is_said(hub: Hub) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UnavailableError, match=r"port \d+ of 127.0.0.1 is taken"),
        serving_http(hub, port=taken.getsockname()[1]),
    ):
        pass


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes certificates, is not installed")
def test_tls_and_certificates_that_do_not_fit(hub: Hub, tmp_path: Path) -> None:
    for name in ("one", "other"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out",
             f"{name}.pem", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip
    pair = {"tls_cert": str(tmp_path / "one.pem"), "tls_key": str(tmp_path / "one.key")}
    with serving_http(hub, **pair) as url:
        assert url.startswith("https://")
        assert httpx.get(f"{url}healthz", verify=ssl.create_default_context(cafile=tmp_path / "one.pem")).json() == {
            "status": "ok"
        }
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http"))
    for wrong in (pair | {"tls_key": str(tmp_path / "other.key")}, pair | {"tls_cert": str(tmp_path / "none.pem")}):
        with pytest.raises(UsageError, match="do not fit"), serving_http(hub, **wrong):
            pass


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("http.host=0.0.0.0", "give token_file"),
        ("http.prot=1", "unknown key 'prot'"),
        ("http.port=hundred", "http.port=hundred"),
        ("http.tls_cert=x", "tls_cert and tls_key go together"),
        ("http=null", "no door is open"),
        ("wyoming.host=0.0.0.0", "is_open_to_network"),
        ("conversations=0", "greater than or equal to 1"),
        ("nonsense", "is not key=value"),
    ],
)
def test_configurations_that_cannot_be(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_configuration(None, [given])


def test_a_file_is_checked_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("schema: serve/v1\nhttp:\n  port: 9000\n  color: red\n")
    with pytest.raises(UsageError, match=r"serve.yaml:4: http.color: unknown key 'color'"):
        load_configuration(file)
    file.write_text("schema: serve/v1\nmqtt: {host: broker.local}\nwyoming: {}\n")
    lines = check_doors(load_configuration(file, ["http.port=9001"]))
    assert lines == [
        "http: http://127.0.0.1:9001/ for this machine, without a token",
        "mqtt: broker.local:1883, under edgewright/, discovery: device",
        "wyoming: tcp://127.0.0.1:10377 for this machine",
    ]
