"""What other packages offer to this one, which may not import them: engines, and makers of evaluation cases.

They are named by entry points, so an engine of your own is a package of yours with one line in its pyproject.toml.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from devices.errors import UsageError

ENGINES, CASE_MAKERS = "edgewright.engines", "edgewright.case_makers"
HUGGINGFACE = "huggingface"  # an engine: (model, template, device, load_in_4bit[, adapter]) -> Engine
GENERATOR = "generator"  # a case maker: (site, count, seed) -> cases
CONVERSATIONS = "conversations"  # likewise of a file in any format: (path, contract) -> (where, messages, schemas)


def load_plugin(group: str, name: str) -> Any:
    """Return what a package offers under a name.

    Raises:
        UsageError: nobody offers it, or what it needs is not installed.
    """
    for point in entry_points(group=group, name=name):
        try:
            return point.load()
        except ImportError as error:
            raise UsageError(f"{name} needs the package {error.name}", hint="pip install edgewright[train]") from error
    raise UsageError(f"no installed package offers {name!r} as one of {group}", hint="install edgewright again")
