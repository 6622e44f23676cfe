"""`edgewright serve --check` and `--new-token`: what would be served, found out without opening or loading it."""

from __future__ import annotations

import os
from pathlib import Path

from devices.errors import UsageError
from devices.site.site import load_site
from edge_agent.agent.session import fitting_site
from edge_agent.bundle import hold_bundle
from edge_agent.serving.configuration import Configuration, HttpDoor, MqttDoor, WyomingDoor, is_loopback
from edge_agent.serving.http.access import make_token, read_token


def new_token_file(path: Path) -> str:
    """Make a token file; return what to do with it. Raises UsageError if it is there already."""
    make_token(path)
    return f"{path}: a new token, readable by you alone; name it as http.token_file"


def check_doors(wanted: Configuration) -> list[str]:
    """Return a line for each door. Raises UsageError for a token file, certificate or secret that does not fit."""
    lines = []
    if wanted.http:
        lines.append(_http(wanted.http))
    if wanted.mqtt:
        lines.append(_mqtt(wanted.mqtt))
    if wanted.wyoming:
        lines.append(_wyoming(wanted.wyoming))
    return lines


def check_box(path: Path, site: str, *, is_live: bool) -> str:
    """Return a line about a box. Raises as open_session does before it loads the model."""
    own = load_site(site) if site else None
    with hold_bundle(path) as bundle:
        own, _, is_known = fitting_site(bundle, own, is_live=is_live)
        trial = "" if is_known else ", which is new to the model: it will be tried first"
        return f"box: {bundle.manifest.name} for {own.name}{trial}"


def _http(wanted: HttpDoor) -> str:
    from edge_agent.serving.http.http_door import require_certificate

    if wanted.token_file:
        read_token(Path(wanted.token_file))
    if wanted.tls_cert:
        require_certificate(wanted)
    scheme, guard = (
        ("https" if wanted.tls_cert else "http"),
        ("with a token" if wanted.token_file else "without a token"),
    )
    whom = "this machine" if is_loopback(wanted.host) else "the network"
    hint = "; without TLS others can read along: give tls_cert and tls_key, or put a proxy in front"
    is_open = not (is_loopback(wanted.host) or wanted.tls_cert)
    return f"http: {scheme}://{wanted.host}:{wanted.port}/ for {whom}, {guard}{hint if is_open else ''}"


def _mqtt(wanted: MqttDoor) -> str:
    if wanted.password_env and not os.environ.get(wanted.password_env):
        raise UsageError(f"mqtt.password_env: the environment variable {wanted.password_env} is not set")
    return f"mqtt: {wanted.host}:{wanted.port}, under {wanted.topic}/, discovery: {wanted.discovery}"


def _wyoming(wanted: WyomingDoor) -> str:
    whom = "this machine" if is_loopback(wanted.host) else "everybody in the network, without a token"
    return f"wyoming: tcp://{wanted.host}:{wanted.port} for {whom}"
