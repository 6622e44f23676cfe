"""Pages for people, each one HTML file without scripts and outside resources, from finetune/templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

TEMPLATES_FOLDER = Path(__file__).parent / "templates"


def render_page(template: str, **values: Any) -> str:
    """Return a page made from a template of the folder; text among the values stays text."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES_FOLDER), autoescape=True, trim_blocks=True)
    return environment.get_template(template).render(**values)
