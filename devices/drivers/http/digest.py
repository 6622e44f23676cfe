"""Digest access authentication: the answer to a server's challenge, without sending the password.

Shelly devices of the second generation on have SHA-256, older things MD5.
Source: RFC 7616, "HTTP Digest Access Authentication"; Shelly Gen2 Device API, "Authentication".

Does not guard against: a server that asks to crack the password from the answer, unless the url is https.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from urllib.request import parse_http_list, parse_keqv_list

HASHES = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}  # the better ones first
FIRST_USE = "00000001"  # each challenge is answered once
QUOTED = ("username", "realm", "nonce", "uri", "response", "cnonce", "opaque")


def authorization(challenges: Iterable[str], verb: str, target: str, user: str, password: str) -> str:
    """Return the header `Authorization` for a request that was answered with these `WWW-Authenticate`.

    Raises:
        ValueError: none of them is a digest of a kind that is known.
    """
    found = {one["algorithm"].upper(): one for one in map(fields_of, challenges) if "auth" in one["qop"].split(",")}
    algorithm = next((name for name in HASHES if name in found), "")
    if not algorithm:
        raise ValueError("it wants no digest with SHA-256 or MD5")
    challenge = found[algorithm]
    kept = ("realm", "nonce", "opaque", "algorithm")
    fields: dict[str, str] = {key: challenge[key] for key in kept if key in challenge}
    fields |= {"username": user, "uri": target, "qop": "auth", "nc": FIRST_USE, "cnonce": secrets.token_hex(16)}
    fields["response"] = response_of(fields, verb, password)
    return "Digest " + ", ".join(
        f'{key}="{text}"' if key in QUOTED else f"{key}={text}" for key, text in fields.items()
    )


def fields_of(header: str) -> dict[str, str]:
    """Return the fields of a challenge or an answer; with `qop` "" if it is another scheme or has none."""
    scheme, _, rest = header.strip().partition(" ")
    fields = parse_keqv_list([part for part in parse_http_list(rest) if "=" in part])
    fields = {key.lower(): text for key, text in fields.items()} if scheme.lower() == "digest" else {}
    return (
        {"algorithm": "MD5", "qop": "", "realm": "", "nonce": ""}
        | fields
        | {"qop": fields.get("qop", "").replace(" ", "")}
    )


def response_of(fields: Mapping[str, str], verb: str, password: str) -> str:
    """Return the field `response` that belongs to the others."""
    used = HASHES[fields["algorithm"].upper()]

    def hashed(*parts: str) -> str:
        return used(":".join(parts).encode()).hexdigest()

    secret = hashed(fields["username"], fields["realm"], password)
    what = hashed(verb, fields["uri"])
    return hashed(secret, fields["nonce"], fields["nc"], fields["cnonce"], fields["qop"], what)
