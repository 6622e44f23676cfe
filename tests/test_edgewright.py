"""The command: what each kind of failure looks like, and how it ends."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from devices.errors import EdgeError, GateError, RefusedError, UnavailableError, UsageError
from edgewright import build_app, main

COMMANDS = [
    "base",
    "sim",
    "tools",
    "log",
    "why",
    "devices",
    "serve",
    "card",
    "data",
    "pretrain",
    "train",
    "export",
    "calibrate",
    "cases",
    "eval",
    "compare",
    "flash",
    "keys",
    "repo",
    "run",
    "bench",
    "box",
    "doctor",
    "selftest",
    "demo",
]


def failing_with(error: BaseException) -> Callable[[], typer.Typer]:
    def build() -> typer.Typer:
        app = typer.Typer()
        app.callback()(lambda: None)

        @app.command()
        def work(count: int = 1) -> None:
            print(f"working {count}")
            raise error

        return app

    return build


@pytest.mark.parametrize(
    ("error", "code"),
    [(EdgeError, 1), (UsageError, 2), (UnavailableError, 3), (RefusedError, 4), (GateError, 5)],
)
def test_an_explained_failure_is_one_line(
    error: type[EdgeError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["work"], failing_with(error("no device 'lamp'", hint="did you mean 'light'?"))) == code
    printed = capsys.readouterr()
    assert printed.err == "error: no device 'lamp'; hint: did you mean 'light'?\n"
    assert printed.out == "working 1\n"


def test_no_hint_is_no_word_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["work"], failing_with(UsageError("no such site"))) == 2
    assert capsys.readouterr().err == "error: no such site\n"


@pytest.mark.parametrize("words", [["--debug", "work"], ["work", "--debug"]])
def test_debug_shows_the_traceback(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words, failing_with(UsageError("no such site"))) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback")
    assert printed.endswith("\nerror: no such site\n")


def test_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["work"], failing_with(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_full_disk_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["work"], failing_with(OSError(errno.ENOSPC, "No space left on device", "out.gguf"))) == 3
    assert capsys.readouterr().err.startswith("error: no space left on the disk: out.gguf; hint: ")


def test_a_path_that_cannot_be_used_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for out, reason in ((tmp_path, "Is a directory"), (file / "rows.jsonl", "File exists")):
        assert main(["data", "generate", "-n", "1", "--out", str(out)]) == 2
        assert re.fullmatch(rf"error: cannot use {tmp_path}\S*: {reason}; hint: .*\n", capsys.readouterr().err)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), ZeroDivisionError("division by zero")])
def test_a_bug_shows_itself(error: Exception) -> None:
    with pytest.raises(type(error)):
        main(["work"], failing_with(error))


def test_a_command_may_end_early() -> None:
    assert main(["work"], failing_with(typer.Exit(5))) == 5


@pytest.mark.parametrize("words", [["nonsense"], ["work", "--nonsense"], ["work", "--count", "many"], ["--nonsense"]])
def test_wrong_usage_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words, failing_with(AssertionError("must not run"))) == 2
    printed = capsys.readouterr()
    assert printed.err
    assert "working" not in printed.out


def test_the_whole_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in printed.split()] == []
    assert set(typer.main.get_command(build_app()).commands) == set(COMMANDS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", [[name] for name in COMMANDS] + [["devices", "call"], ["data", "generate"]])
def test_every_command_has_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith(f"Usage: edgewright {' '.join(words)} ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("edgewright 0.")


@pytest.mark.parametrize("words", [["--help"], ["devices", "list"]])
def test_a_reader_that_leaves(words: list[str]) -> None:
    """`edgewright … | head -0` prints no traceback: the reading end is closed before anything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edgewright", *words], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("mode", "code", "status"),
    [("auto", 0, "done"), ("dry_run", 0, "dry run"), ("assist", 4, "needs confirmation"), ("locked", 4, "refused")],
)
def test_modes(mode: str, code: int, status: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "call", "kitchen_light", "on", "--mode", mode]) == code
    assert capsys.readouterr().out.startswith(f"{status}: ")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["KITCHEN_LIGHT", "Brightness", "BRIGHTNESS=40"], 0),
        (["Kitchen_Lamb", "on"], 2),
        (["kitchen_light", "ONN"], 2),
    ],
)
def test_names_on_the_command_line_may_have_any_capitals(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["devices", "call", *words]) == code
    printed = capsys.readouterr()
    wanted = "done: The kitchen light brightness is 40 percent.\n" if code == 0 else ""
    assert printed.out == wanted and (words[0 if words[0] == "Kitchen_Lamb" else 1] in printed.err) == (code == 2)
    assert main(["devices", "read", words[0]]) == (2 if words[0] == "Kitchen_Lamb" else 0)


def test_a_simulated_world_takes_no_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A live site would pay later what a simulated valve owes."""
    journal = tmp_path / "journal.sqlite"
    assert main(["devices", "call", "kitchen_light", "on", "--journal", str(journal)]) == 2
    assert "--live" in capsys.readouterr().err and not journal.exists()
