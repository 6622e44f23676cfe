"""Checks of what runs on the box: the bundle, llama.cpp, and the packages of drivers."""

from __future__ import annotations

from collections.abc import Mapping

from edge_agent.box.finding import Finding, failure, ok, size_text, warning
from edge_agent.box.hardware import COMPILE_HERE
from edge_agent.box.module_imports import import_problems
from edge_agent.bundle import Bundle
from edge_agent.engine.llama_cpp_probe import Probe

LLAMA_CPP = "llama-cpp-python"


def check_bundle(bundle: Bundle) -> list[Finding]:
    """Tell what bundle is here; it was opened, so that every file is as it was exported."""
    manifest = bundle.manifest
    size = sum(entry.bytes for entry in manifest.files.values())
    text = f"{manifest.name} ({manifest.id}), {manifest.quant}, for {manifest.site}: {len(manifest.files)} files, "
    return [ok("bundle", f"{text}{size_text(size)}, each as it was exported")]


def check_llama_cpp(found: Probe, exported_with: str, *, is_model_whole: bool) -> list[Finding]:
    """Find a llama.cpp that does not load, is of another version, or does not know the model.

    Args:
        found: by trying it.
        exported_with: the version that the bundle was exported and tested with, or "" if it does not say.
        is_model_whole: whether the bundle's model was given to it.
    """
    name = "llama.cpp"
    if found.problem:
        if "No module named" in found.problem:
            return [failure(name, found.problem, "pip install 'edgewright[box]'")]
        return [failure(name, f"it does not load: {found.problem}", f"{COMPILE_HERE} {LLAMA_CPP}")]
    text = f"{LLAMA_CPP} {found.version} and llguidance load"
    if found.model_problem:
        fix = f"pip install {LLAMA_CPP}=={exported_with or 'VERSION'}, the version of the export"
        return [failure(name, f"{text}, but not the model: {found.model_problem}", fix)]
    if is_model_whole:
        text += ", and so does the model's vocabulary"
    if exported_with and exported_with != found.version:
        fix = f"pip install {LLAMA_CPP}=={exported_with}, or see that `edgewright selftest` passes"
        return [warning(name, f"{text}; the bundle was exported with {exported_with}, and replies may differ", fix)]
    return [ok(name, f"{text}; the bundle was exported with it" if exported_with else text)]


def check_packages(modules: Mapping[str, str]) -> list[Finding]:
    """Find Python packages that the site's drivers import in vain; `modules` has the package of each module."""
    if not modules:
        return [ok("packages", "the site's drivers need none")]
    problems = import_problems(modules)
    found = [
        failure("packages", f"{modules[module]} cannot be imported: {problem}", f"pip install {modules[module]}")
        for module, problem in problems.items()
    ]
    if good := [package for module, package in modules.items() if module not in problems]:
        found.insert(0, ok("packages", f"{', '.join(dict.fromkeys(good))} can be imported"))
    return found
