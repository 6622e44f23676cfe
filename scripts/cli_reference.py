"""Write docs/cli.md from what `edgewright --help` says of every command: python scripts/cli_reference.py"""

from __future__ import annotations

import sys
from pathlib import Path

import typer.main
from typer.cli import get_docs_for_click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from edgewright import build_app

REFERENCE = ROOT / "docs" / "cli.md"
HEAD = "<!-- Made by scripts/cli_reference.py. Change the help texts in the code, then run it again. -->\n\n"


def cli_reference() -> str:
    """Return every command's help as Markdown."""
    command = typer.main.get_command(build_app())
    context = command.context_class(command, info_name="edgewright")
    return HEAD + get_docs_for_click(obj=command, ctx=context, name="edgewright").strip() + "\n"


if __name__ == "__main__":
    REFERENCE.write_text(cli_reference(), encoding="utf-8")
