"""What the documentation says: its commands parse, its links lead somewhere, its reference is what --help says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from edgewright import build_app
from scripts.cli_reference import REFERENCE, cli_reference

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
MADE = {REFERENCE}
LINE_LENGTH = 120
README_LINES = 140


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands_in(text: str) -> Iterator[list[str]]:
    """Yield the words after `edgewright` of every command, in blocks of shell and in code spans."""
    text = text.replace("\\\n", " ")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"`((?:\.venv/bin/)?edgewright [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in [*"\n".join(blocks).splitlines(), *spans]:
        if match := re.search(r"(?:^|&& |-m |bin/)edgewright (.*)", line):
            words = shlex.split(re.split(r" &&| &$| &  ", match[1])[0], comments=True)
            if "…" not in words and not any(word.startswith("…") for word in words):
                yield words


def problem_of(words: list[str]) -> str:
    """Return what is wrong with a command's words; its arguments are counted, and not looked up."""
    command = typer.main.get_command(build_app())
    context = command.context_class(command, info_name="edgewright")
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return f"no command {words[0]}"
        command, words = found, words[1:]
        context = command.context_class(command, info_name=command.name, parent=context)
    try:
        command.make_parser(context).parse_args(list(words))
    except Exception as error:  # noqa: BLE001  # click's own, which typer carries with it
        return "" if "requires an argument" in str(error) else str(error)  # a code span may name an option alone
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_those_of_the_command_line(page: Path) -> None:
    found = {" ".join(words): problem_of(words) for words in commands_in(page.read_text(encoding="utf-8"))}
    assert {words: problem for words, problem in found.items() if problem} == {}


def test_a_wrong_command_is_seen() -> None:
    text = "```sh\nedgewright flash a b --no-prime\nedgewright flash a b --wrong\n```\nSay `edgewright fly a`."
    assert [bool(problem_of(words)) for words in commands_in(text)] == [False, True, True]


def test_there_are_commands_to_look_at() -> None:
    assert sum(1 for page in PAGES for _ in commands_in(page.read_text(encoding="utf-8"))) > 40


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_make_has_every_target_that_a_page_names() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "check"} <= named <= targets


def test_the_reference_is_what_help_says() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == cli_reference(), "run: python scripts/cli_reference.py"


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= README_LINES and max(map(len, lines)) <= LINE_LENGTH
