"""YAML files that a person writes, checked by pydantic models: every problem names file, line and nearest key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from devices.errors import UsageError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A part of a file a person writes: unknown keys are errors and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True)
class YamlFile:
    """A parsed YAML file that can tell the line of a key."""

    path: Path
    root: Any

    def where(self, keys: tuple[Any, ...]) -> str:
        """Return file:line of the deepest of the nested keys that the file has."""
        node: Any = self.root
        line = 1
        for key in keys:
            if not isinstance(node, dict | list):
                break
            try:
                marks: Any = getattr(node, "lc")  # noqa: B009 - ruamel's line marks, which dict and list have not
                line = (marks.key(key) if isinstance(node, dict) else marks.item(key))[0] + 1
                node = node[key]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
        return f"{self.path}:{line}"

    def fail(self, keys: tuple[Any, ...], message: str, hint: str = "") -> UsageError:
        """Return the error for a problem at nested keys."""
        return UsageError(f"{self.where(keys)}: {message}", hint=hint)

    def explain(self, keys: tuple[Any, ...], error: ValidationError, model: type[BaseModel]) -> UsageError:
        """Return the error for what pydantic found first in the part of the file under `keys`."""
        location, message, hint = first_problem(error, model)
        path = ".".join(str(part) for part in (*keys, *location))
        return self.fail((*keys, *location), f"{path}: {message}" if path else message, hint)


def read_yaml(path: Path, what: str = "file") -> YamlFile:
    """Read a YAML 1.2 file, so that the key `on` is a word and not a boolean.

    Raises:
        UsageError: it cannot be read or is not YAML; `what` names its kind in the message.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the {what} {path}: {error}") from error


def parse_yaml(text: str, path: Path) -> YamlFile:
    """Return a file as read_yaml does, of which the text is known. Raises UsageError if it is not YAML."""
    try:
        return YamlFile(path, YAML(typ="rt", pure=True).load(text))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{path}:{line}: not YAML: {error.problem}") from error
    except YAMLError as error:  # such as a character that no YAML may have
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from error


def shipped_names(folder: Path) -> list[str]:
    """Return the names of what ships as .yaml files in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_model(path: Path, model: type[Model], what: str = "file") -> Model:
    """Read a YAML file as a pydantic model.

    Raises:
        UsageError: as read_yaml; or a wrong key or value, with file and line.
    """
    source = read_yaml(path, what)
    try:
        return model.model_validate(plain_values(source.root))
    except ValidationError as error:
        raise source.explain((), error, model) from error


@dataclass(frozen=True)
class Override:
    """A `key=value` of the command line: nested keys, the value as YAML types it, and how it was written."""

    keys: tuple[str, ...]
    value: Any
    text: str

    def set_in(self, root: dict[str, Any]) -> None:
        """Set the nested value. Raises UsageError if a key on the way holds a value."""
        node = root
        for key in self.keys[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise UsageError(f"override {self.text}: {key} holds a value and no keys")
        node[self.keys[-1]] = self.value


def parse_override(text: str, example: str) -> Override:
    """Return what a word `key=value` says. Raises UsageError if it is none; `example` is then shown."""
    dotted, equals, written = text.partition("=")
    if not equals or not all(dotted.split(".")):
        raise UsageError(f"override {text!r} is not key=value", hint=f"for example {example}")
    return Override(tuple(dotted.split(".")), parse_value(written, f"override {text}"), text)


def overridden_model(source: YamlFile, root: Any, model: type[Model], overrides: Iterable[Override]) -> Model:
    """Return the model of a file's values, over which overrides were laid.

    Raises:
        UsageError: a wrong key or value; the message has the override it comes from, or file and line.
    """
    try:
        return model.model_validate(root)
    except ValidationError as error:
        location, message, hint = first_problem(error, model)
        for one in overrides:
            shared = min(len(one.keys), len(location))
            if shared and location[:shared] == one.keys[:shared]:
                raise UsageError(f"override {one.text}: {message}", hint=hint) from error
        raise source.explain((), error, model) from error


def shipped_path(name_or_path: str | Path, folder: Path, what: str) -> Path:
    """Return the .yaml file of what ships in a folder, by name, or the path as it is, which is not checked here.

    Raises:
        UsageError: nothing that ships has the name; `what` is its kind in one word.
    """
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return path
    path = folder / f"{name_or_path}.yaml"
    if not path.is_file():
        known = shipped_names(folder)
        hint = did_you_mean(str(name_or_path), known, f"{what}s: {', '.join(known)}; or give a .yaml file")
        raise UsageError(f"no {what} is called {str(name_or_path)!r}", hint=hint)
    return path


def parse_value(text: str, what: str) -> Any:
    """Return a value written on the command line, typed as YAML types it. Raises UsageError naming `what`."""
    try:
        return plain_values(YAML(typ="rt", pure=True).load(text))
    except YAMLError as error:
        raise UsageError(f"{what}: the value is not YAML") from error


def plain_values(value: Any) -> Any:
    """Return a copy in plain Python types: ruamel's scalars carry layout, and strict models refuse them."""
    if isinstance(value, dict):
        return {key: plain_values(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_values(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def first_problem(error: ValidationError, model: type[BaseModel]) -> tuple[tuple[Any, ...], str, str]:
    """Return where pydantic's first problem is, what it is in words, and a hint with the nearest valid key."""
    first = error.errors()[0]
    location, message = tuple(first["loc"]), first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        hint = did_you_mean(str(location[-1]), valid_keys(model, location[:-1]))
        return location, f"unknown key {location[-1]!r}", hint
    return location, message, ""


def valid_keys(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Return the keys that a model takes at nested keys, as they are written in the file."""
    kind: Any = model
    for part in location:
        kind = _kind_under(kind, part)
    kind = _only_container(kind)
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    return [field.alias or name for name, field in kind.model_fields.items()]


def _kind_under(kind: Any, part: Any) -> Any:
    """Return the annotation of what a key or an index leads to; None if it leads nowhere."""
    kind = _only_container(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        found = [field for name, field in kind.model_fields.items() if part in (name, field.alias)]
        return found[0].annotation if found else None
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return inner[1]
    return inner[0] if origin in (tuple, list) else None


def _only_container(kind: Any) -> Any:
    """Return the model, mapping or sequence among the members of a union such as `Ending | None`."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    members = get_args(kind)
    models = [item for item in members if isinstance(item, type) and issubclass(item, BaseModel)]
    return next(iter([*models, *(item for item in members if get_origin(item))]), None)
