"""The commands `edgewright tools list|check|call`: parse, call one function, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devices.errors import RefusedError, UnavailableError, UsageError, did_you_mean
from devices.options import Json, Mode, Yes

if TYPE_CHECKING:
    from devices.site.site import Site

_Toolset = Annotated[Path, typer.Argument(metavar="TOOLS", help="A toolset's .yaml file.")]


def register_tools(tools: typer.Typer) -> None:
    """Add this package's commands to `edgewright tools`."""
    tools.command("list")(list_tools)
    tools.command("check")(check_tools)
    tools.command("call")(call_tool)


def list_tools(path: _Toolset, as_json: Json = False) -> None:
    """List a toolset's tools: what each takes, its risk, and who carries it out."""
    from devices.site.tools import tools_of

    toolset = _load(path)
    if as_json:
        print(json.dumps([tool.openai() for tool in tools_of(toolset)], ensure_ascii=False))
        return
    width = max(map(len, toolset.functions))
    for name, function in toolset.functions.items():
        required = function.parameters.get("required", [])
        given = [one if one in required else f"[{one}]" for one in function.parameters.get("properties", {})]
        limits = "".join(f", {one} {_limit_text(limit)}" for one, limit in function.limits.items())
        print(f"{name:<{width}}  {function.risk}{limits}  {function.executor or '-'}  {' '.join(given)}".rstrip())


def check_tools(path: _Toolset) -> None:
    """Check a toolset whole: schemas, limits, executors and their addresses; nothing is called."""
    from devices.drivers.registry import check_site
    from devices.yaml_file import read_yaml

    toolset = _only_tools(check_site(read_yaml(path, "toolset")), path)
    unbound = [name for name, function in toolset.functions.items() if not function.executor]
    ends = f"; without an executor, to train on only: {', '.join(unbound)}" if unbound else ""
    print(f"{path}: {len(toolset.functions)} tools, nothing wrong{ends}")


def call_tool(
    path: _Toolset,
    name: Annotated[str, typer.Argument(help="Which tool.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="name=value, typed as YAML types it; or all as one JSON object.")
    ] = None,
    yes: Yes = False,
    mode: Mode = "auto",
    journal: Annotated[Path | None, typer.Option(help="Its file; default: the toolset's own.")] = None,
    as_json: Json = False,
) -> None:
    """Carry out one call through the broker, with its policy, confirmation and journal, and print what it answered."""
    from devices.broker.journal import Journal
    from devices.broker.runtime import default_journal, live_runtime
    from devices.site.functions import CALL
    from devices.site.tools import Command

    toolset = _load(path)
    if name not in toolset.functions:
        hint = did_you_mean(name, toolset.functions, f"tools: {', '.join(toolset.functions)}")
        raise UsageError(f"no tool is called {name!r}", hint=hint)
    confirm = (lambda effect: True) if yes else None
    runtime = live_runtime(toolset, Journal(journal or default_journal(toolset)), confirm, mode)
    try:
        outcome = runtime.broker.execute(Command(name, CALL, _arguments_of(arguments or [], toolset, name)))
    finally:
        runtime.close()
    plain = {"status": outcome.status, "report": outcome.report, "result": outcome.result}
    print(json.dumps(plain if as_json else outcome.result, ensure_ascii=False))
    if outcome.status in {"refused", "needs_confirmation"}:
        raise RefusedError(
            outcome.report, hint="add --yes to confirm" if outcome.status == "needs_confirmation" else ""
        )
    if outcome.status not in {"done", "dry_run"}:
        raise UnavailableError(outcome.report)


def _load(path: Path) -> Site:
    from devices.site.site import load_site

    return _only_tools(load_site(path), path)


def _only_tools(site: Site, path: Path) -> Site:
    if not site.is_toolset:
        raise UsageError(f"{path} is a site, not a toolset", hint="`edgewright devices` works sites")
    return site


def _limit_text(limit: Any) -> str:
    return " ".join(
        f"{sign} {bound:g}" for sign, bound in ((">=", limit.minimum), ("<=", limit.maximum)) if bound is not None
    )


def _arguments_of(written: list[str], toolset: Site, name: str) -> dict[str, Any]:
    from devices.broker.runtime import name_and_value
    from devices.yaml_file import parse_value

    if len(written) == 1 and written[0].lstrip().startswith("{"):
        try:
            return dict(json.loads(written[0]))
        except ValueError as error:
            raise UsageError(f"the arguments are not JSON: {error}") from error
    known = toolset.functions[name].parameters.get("properties", {})
    given: dict[str, Any] = {}
    for word in written:
        key, value = name_and_value(word, known)
        given[key] = value if known.get(key, {}).get("type") == "string" else parse_value(value, word)
    return given
