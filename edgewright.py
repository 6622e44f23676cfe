"""The command `edgewright`: puts the four packages' commands together, and turns failures into one line each.

Building the command line loads no model library: each package's cli.py imports those inside its functions.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Annotated

import typer

from devices.errors import EdgeError, UnavailableError, UsageError

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE = 1
WRONG_PATH = {errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.EACCES, errno.EROFS, errno.ENAMETOOLONG}


def build_app() -> typer.Typer:
    """Return the whole command line."""
    import devices.cli
    import devices.tools_cli
    import edge_agent.cli
    import export.cli

    has_training = find_spec("finetune") is not None  # a box's kit leaves it out
    app = typer.Typer(
        name="edgewright",
        help="Fine-tune a small model to work real devices, prove it, flash it to a box, run it offline.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_global_options)
    tools = typer.Typer(no_args_is_help=True, help="Toolsets: tools of your own that belong to no device.")
    box = typer.Typer(no_args_is_help=True, help="The machine that a model runs on.")
    if has_training:
        import finetune.cli

        finetune.cli.register_tools(tools)
    devices.tools_cli.register_tools(tools)
    app.add_typer(tools, name="tools")
    devices.cli.register(app)
    if has_training:
        finetune.cli.register(app)
    export.cli.register(app)
    export.cli.register_box(box)
    edge_agent.cli.register_box(box)
    app.add_typer(box, name="box")
    edge_agent.cli.register(app)
    if has_training:
        import edgewright_demo

        edgewright_demo.register(app)
    return app


def main(arguments: Sequence[str] | None = None, build: Callable[[], typer.Typer] = build_app) -> int:
    """Run one command and return its exit code. The one place where errors become lines on stderr.

    Args:
        arguments: what follows `edgewright`; None means this process's own.
        build: makes the command line.

    Returns:
        0, or the exit code of the EdgeError's class, 2 for wrong usage, 3 for a full disk, 130 when interrupted.

    Raises:
        Exception: anything else is a bug, and shows its traceback.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not is_debug:  # it warns of optional kernels that it did not find, as of a failure
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        code = _run(build, words)
        sys.stdout.flush()
    except EdgeError as error:
        code = _explain(error, is_debug)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        code = BROKEN_PIPE
    except OSError as error:
        if (failure := _failure_of(error)) is None:
            raise
        failure.__cause__ = error
        code = _explain(failure, is_debug)
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return code


def _failure_of(error: OSError) -> EdgeError | None:
    """Return what an error of the file system says to the person; None if it is none of the person's doing."""
    path = error.filename2 or error.filename
    if error.errno == errno.ENOSPC:
        where = f": {path}" if path else ""
        return UnavailableError(f"no space left on the disk{where}", hint="free some space, then run it again")
    if error.errno in WRONG_PATH and path:
        return UsageError(f"cannot use {path}: {os.strerror(error.errno)}", hint="give another path")
    return None


def command() -> None:
    """Run this process's command line and exit with its code."""
    # What libraries tell each other's authors, not the person here; child processes are told the same.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    sys.exit(main())


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"edgewright {version('edgewright')}")
        raise typer.Exit


def _global_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    # Only for --help: main() reads --debug, so that it may also stand after the command.
    del debug, version


def _run(build: Callable[[], typer.Typer], words: list[str]) -> int:
    try:
        typer.main.get_command(build()).main(args=words, prog_name="edgewright")
    except SystemExit as end:  # Typer's own ending: it has shown the wrong usage, or there is nothing to show
        return end.code if isinstance(end.code, int) else 0
    return 0


def _explain(error: EdgeError, is_debug: bool) -> int:
    if is_debug:
        traceback.print_exception(error)
    hint = f"; hint: {error.hint}" if error.hint else ""
    print(f"error: {error}{hint}", file=sys.stderr)
    return error.exit_code


def _drop_output() -> None:
    """Send the rest of stdout nowhere, so that Python's last flush does not complain. Source: Python docs, signal."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    command()
