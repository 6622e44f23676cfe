"""Requests over HTTP that go where the person said, and nowhere else: they may carry a key."""

from __future__ import annotations

import urllib.request
from typing import Any


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the answer that asks for one is the answer."""

    def redirect_request(self, *_: Any) -> None:
        """Return no further request."""
        return
