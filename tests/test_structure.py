"""What the code must look like as a whole: who imports whom, how big files are, what is pinned and written down."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.plugins import CASE_MAKERS, ENGINES, GENERATOR, HUGGINGFACE

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT: dict[str, set[str]] = {
    "devices": set(),
    "edge_agent": {"devices"},
    "export": {"devices", "edge_agent"},
    "finetune": {"devices", "edge_agent"},
}
# Rooms of each package, lowest first: a file imports from its own room and from those before it.
ROOMS = {
    "devices": "errors durable json_lines no_redirect yaml_file site driver simulation drivers exchange broker"
    " simulated_peers options exchange_cli tools_cli cli",
    "edge_agent": "plugins progress base_models run_facts wire grammar engine bundle agent evaluation serving box cli",
    "export": "pip_command rope architectures llama_cpp_file trained quantize gates convert bundle flash release kit"
    " pipeline release_cli cli",
    "finetune": "pages data recipe training inference pretraining cli",
}
MOST_FILES_IN_A_FOLDER = 20
HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "bitsandbytes", "accelerate"}
NATIVE = {"llama_cpp", "llguidance", "gguf", "tokenizers"}
FILES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))
LONGEST_FUNCTION_LINES = 65  # of its body, docstring left out
HELP_MEMORY_KIB = 60 * 1024
# Not ours to check, or made by tools. `shared` is a mount that only some checkouts have.
FOREIGN_FOLDERS = {".git", ".venv", "build", "dist", "runs", "shared", "__pycache__"}
# Taken apart, so that this file does not find itself.
BANNED_TEXTS = ["py" + "pi.org", "python" + "hosted.org", "download." + "pytorch.org", "conda." + "anaconda.org"]
BANNED_TEXTS += ["/" + "work/", "/opt/" + "pypi", "/opt/" + "wheels"]
NAMED_TO_OPEN = re.compile(rf"({'|'.join(MAY_IMPORT)})(?:\.\w+)*:\w+")  # as pkgutil.resolve_name takes it
SHARED_DATA = re.compile("shared" + r"""(/|["'] */ *["'])data""")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_modules(source: str) -> set[str]:
    """Return the modules that a module imports anywhere, also inside functions."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module} if "." in node.module else {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def later_rooms(package: str, room: str, source: str) -> list[str]:
    """Return the modules of the same package that a file in a room imports although their rooms come later."""
    order = ROOMS[package].split()
    own = [module.split(".") for module in imported_modules(source) if module.startswith(f"{package}.")]
    return [".".join(parts) for parts in own if order.index(parts[1]) > order.index(room)]


def imported_roots(source: str) -> set[str]:
    """Return the top packages that a module imports anywhere, also inside functions and by name."""
    roots = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
            roots |= {str(a.value).split(".")[0] for a in node.args if isinstance(a, ast.Constant)}
        elif isinstance(node, ast.Constant) and (named := NAMED_TO_OPEN.fullmatch(str(node.value))):
            roots.add(named[1])
    return roots


def banned_roots(package: str) -> set[str]:
    banned = MAY_IMPORT.keys() - MAY_IMPORT[package] - {package}
    return banned | HEAVY if package in {"devices", "edge_agent"} else banned


def own_files() -> Iterator[Path]:
    """Yield the files of the checkout that git would keep."""
    for path in sorted(ROOT.rglob("*")):
        parts = set(path.relative_to(ROOT).parts)
        is_made = any(part.endswith((".egg-info", "_cache")) or part == ".hypothesis" for part in parts)
        if path.is_file() and not is_made and not parts & FOREIGN_FOLDERS:
            yield path


def texts() -> Iterator[tuple[str, str]]:
    """Yield name and text of the checkout's text files."""
    for path in own_files():
        data = path.read_bytes()
        if b"\0" not in data:
            yield name_of(path), data.decode("utf-8", errors="replace")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert not imported_roots(path.read_text(encoding="utf-8")) & banned_roots(package)


@pytest.mark.parametrize("path", [path for path in FILES if len(path.relative_to(ROOT).parts) > 1], ids=name_of)
def test_rooms_import_those_before_them(path: Path) -> None:
    package, inner = path.relative_to(ROOT).parts[0], path.relative_to(ROOT / path.relative_to(ROOT).parts[0])
    if inner.name != "__init__.py":
        room = inner.parts[0].removesuffix(".py")
        assert later_rooms(package, room, path.read_text(encoding="utf-8")) == []


def test_the_check_of_rooms_sees() -> None:
    source = "def f():\n    from devices.broker.broker import Broker\nimport devices.errors\nfrom devices import cli"
    assert sorted(later_rooms("devices", "site", source)) == ["devices.broker.broker", "devices.cli"]
    assert later_rooms("devices", "cli", source) == []


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=name_of)
def test_a_folder_is_read_at_a_glance(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_FILES_IN_A_FOLDER


@pytest.mark.parametrize(
    ("line", "root"),
    [
        ("import torch.nn as nn", "torch"),
        ("from finetune.data.rows import Row", "finetune"),
        ("def f():\n    if True:\n        from trl import SFTTrainer", "trl"),
        ("import importlib\nimportlib.import_module('export.convert.gguf_writer')", "export"),
        ("__import__('peft')", "peft"),
        ("OPENER = 'finetune.inference.huggingface_engine:open_engine'", "finetune"),
    ],
)
def test_the_import_check_sees(line: str, root: str) -> None:
    assert imported_roots(line) & banned_roots("edge_agent") == {root}


@pytest.mark.parametrize("path", [path for path in own_files() if path.suffix == ".py"], ids=name_of)
def test_a_function_has_one_purpose_and_a_file_a_name(path: Path) -> None:
    assert long_functions(path.read_text(encoding="utf-8")) == []
    assert path.stem not in {"utils", "util", "common", "helpers", "helper", "misc"}


def long_functions(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body and body[-1].end_lineno - body[0].lineno >= LONGEST_FUNCTION_LINES:
                found.append(f"{node.name}: look for its second purpose")
    return found


def test_a_long_function_is_seen() -> None:
    lines = LONGEST_FUNCTION_LINES * ["    pass"]
    assert long_functions("\n".join(["def f():", *lines])) == []
    assert long_functions("\n".join(["def f():", '    """Long."""', *lines, "    pass"])) != []


def test_every_import_is_a_declared_dependency() -> None:
    """What a package imports is the standard library, ours, or in pyproject.toml."""
    imported = set().union(*(imported_roots(path.read_text(encoding="utf-8")) for path in FILES))
    renamed = {"llama-cpp-python": "llama_cpp", "ruamel.yaml": "ruamel", "paho-mqtt": "paho", "pyserial": "serial",
               "tensorboardx": "tensorboardX", "text2num": "text_to_num"}  # fmt: skip
    module_names = {renamed.get(name, name.replace("-", "_")) for name in dependencies()}
    assert imported - module_names - MAY_IMPORT.keys() - sys.stdlib_module_names == set()


def test_the_box_side_loads_nothing_heavy() -> None:
    modules = [path for path in FILES if path.relative_to(ROOT).parts[0] in {"devices", "edge_agent"}]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in modules]
    loaded = run_python(
        f"import importlib, json, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    assert not HEAVY & set(json.loads(loaded))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("words", [["--help"], ["run", "--help"]])
def test_help_is_light(words: list[str]) -> None:
    """How long it takes is measured in benchmarks/startup.py."""
    printed = run_python(
        f"import json, sys, edgewright\ncode = edgewright.main({words!r})\n"
        "roots = sorted({name.split('.')[0] for name in sys.modules})\n"
        "print(json.dumps([code, roots, open('/proc/self/status').read()]))"
    )
    code, roots, status = json.loads(printed.splitlines()[-1])
    assert code == 0
    assert not (HEAVY | NATIVE) & set(roots)
    # Not resource.ru_maxrss: a child inherits that from the process that started it, here pytest.
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < HELP_MEMORY_KIB


@pytest.mark.parametrize(("group", "name"), [(ENGINES, HUGGINGFACE), (CASE_MAKERS, GENERATOR)])
def test_what_is_found_by_name_exists(group: str, name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["entry-points"][group][name].partition(":")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_no_registry_or_private_path_is_named() -> None:
    found = [f"{name}: {banned}" for name, text in texts() for banned in BANNED_TEXTS if banned in text]
    assert found == []


def test_shared_data_is_optional() -> None:
    """A test or benchmark that reads the shared mount must say what it does where there is none."""
    unguarded = [
        name
        for name, text in texts()
        if name.endswith(".py")
        and SHARED_DATA.search(text)
        and not re.search(r"skip|exists\(|is_dir\(|is_file\(", text)
    ]
    assert unguarded == []


def dependencies() -> list[str]:
    """Return the names of everything pyproject.toml asks for, our own extras left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.split(r"[\[<>=!~; ]", line)[0] for line in wanted}
    return sorted(names - {"edgewright"})


def test_constraints_are_exact() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    wrong = [line for line in pins if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[0-9][A-Za-z0-9.]*", line)]
    assert wrong == []
    assert pins == sorted(set(pins))


@pytest.mark.parametrize("name", dependencies())
def test_a_dependency_is_pinned_and_has_a_reason(name: str) -> None:
    assert f"\n{name}==" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"`{name}`" in (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")


def test_sockets_are_blocked() -> None:
    import socket

    from pytest_socket import SocketBlockedError

    with pytest.warns(UserWarning, match="tried to use socket"), pytest.raises(SocketBlockedError):
        socket.socket(socket.AF_INET)
