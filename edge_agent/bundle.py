"""Read and verify a bundle: everything a box needs to run one model, in one folder with a manifest.

A bundle is opened whole or not at all: every file's size and SHA-256, no file more or less, a sound GGUF header,
and a template, system prompt and site that still make the contract the model was trained for. While it is held, by a
shared lock on its folder, no flash cleans it away: an engine that is started again reads the model once more.

Does not guard against: someone who rewrites the files and the manifest together (there is no signature), or who
changes a file after it was verified.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from devices.broker.narrowing import narrowed
from devices.durable import sha256_of
from devices.errors import RefusedError, UnavailableError, UsageError
from devices.site.site import Site, load_site
from devices.site.tools import Tool, tools_of
from devices.yaml_file import Strict
from edge_agent.engine.engine import Limits
from edge_agent.engine.gguf_header import GgufHeader, require_gguf
from edge_agent.wire.chat_template import ChatTemplate, ContractChanged
from edge_agent.wire.contract import argument_text, contract_of, format_digest, require_contract, signature

MANIFEST, MODEL, TEMPLATE, SYSTEM = "manifest.json", "model.gguf", "chat_template.jinja", "system.txt"
TOOLS, SITE, SAMPLING = "tools.json", "site.yaml", "sampling.json"
EXPORT, CARD = "export.json", "README.md"
REQUIRED_FILES = (MODEL, TEMPLATE, SYSTEM, TOOLS, SITE, SAMPLING, EXPORT, CARD)
SMOKE, SMOKE_RECORD, ADAPTER = "smoke.jsonl", "smoke_record.jsonl", "adapter.gguf"  # these may be there too,
CONFIDENCE = "confidence.json"  # and this
CURRENT, PREVIOUS, BUNDLES = "current", "previous", "bundles"  # names in a box's root, which flash makes
ID_LENGTH = 12
CONTRACT_KEY, TEMPLATE_KEY = "edgewright.contract", "edgewright.template"
ANY_SITE_KEY = "edgewright.any_site"
MOST_BYTES = 2**63 - 1  # of a file, on any disk
_MANIFEST_BYTES = 1 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SHA256 = r"^[0-9a-f]{64}$"
_AGAIN = "flash or export the bundle again"


class BundleTampered(RefusedError):
    """The bundle is not what was exported."""


class FileEntry(Strict):
    """What a file must be."""

    sha256: str = Field(pattern=_SHA256)
    bytes: int = Field(ge=0, le=MOST_BYTES)


class Manifest(Strict):
    """The list of a bundle's files, and what the bundle is for.

    Attributes:
        site: the site that the model was trained for, or tested on if it is for any.
        any_site: of a model for any site, the digest of how sites are written down; not in the file if it is "".
        contract: the digest of wire.Contract.
    """

    schema_: Literal["bundle/v1"] = Field(alias="schema")
    name: str
    site: str
    any_site: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    quant: str
    contract: str = Field(pattern=_SHA256)
    files: dict[str, FileEntry]

    @model_validator(mode="after")
    def _require_names(self) -> Manifest:
        for name in self.files:
            if not _PLAIN_NAME.fullmatch(name) or name == MANIFEST:
                raise ValueError(f"{name!r} cannot be a bundle's file")
        if missing := [name for name in REQUIRED_FILES if name not in self.files]:
            raise ValueError(f"{missing[0]} is not listed")
        return self

    def to_bytes(self) -> bytes:
        """Return the file's bytes: JSON that ends with its own SHA-256; no other bytes are accepted."""
        plain = self.model_dump(by_alias=True)
        if not self.any_site:
            del plain["any_site"]
        return (json.dumps(plain | {"sha256": _digest_of(plain)}, indent=2, ensure_ascii=False) + "\n").encode()

    @property
    def id(self) -> str:
        """The folder name on a box: the start of the manifest's SHA-256."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:ID_LENGTH]


class Sampling(Strict):
    """sampling.json: decoding is greedy; `template` and `stop` are the chat template's name and end-of-turn token.

    `reply_tokens` and `timeout_s` are for other runtimes: an agent's turn has TurnLimits.
    """

    template: str
    stop: str = Field(min_length=1)
    temperature: Literal[0] = 0
    reply_tokens: int = Field(default=Limits.reply_tokens, gt=0)
    timeout_s: float | None = Field(default=None, gt=0)


class Confidence(Strict):
    """confidence.json: how sure a model must be to act without asking, as `edgewright calibrate` found it.

    Attributes:
        ask_below: calls that the model finds less probable than this (0 to 1) wait for a yes.
        max_wrong: what share of the others may be wrong.
        turns: of the cases it was measured on, how many called something.
        acted: how many of them would have been carried out without asking.
        wrong: how many of those were wrong.
        cases: the file's name.
        cases_sha256: its digest.
    """

    schema_: Literal["confidence/v1"] = Field(alias="schema")
    ask_below: float = Field(ge=0, le=1)
    max_wrong: float = Field(ge=0, le=1)
    turns: int = Field(ge=1)
    acted: int = Field(ge=0)
    wrong: int = Field(ge=0)
    cases: str
    cases_sha256: str = Field(pattern=_SHA256)


@dataclass(frozen=True)
class Bundle:
    """A bundle. `path` is the folder itself, never the box's `current` link; `site` is what came with the model."""

    path: Path
    manifest: Manifest
    template: ChatTemplate
    system_text: str
    header: GgufHeader
    site: Site
    confidence: Confidence | None = None

    @property
    def ask_below(self) -> float | None:
        """How probable a call must be to the model to be carried out without asking; None if that was not measured."""
        return self.confidence.ask_below if self.confidence else None

    @property
    def model_path(self) -> Path:
        """The quantized model; the base model's if there is an adapter."""
        return self.path / MODEL

    @property
    def adapter_path(self) -> Path | None:
        """The LoRA adapter to apply to the model, if it is not merged in."""
        return self.path / ADAPTER if ADAPTER in self.manifest.files else None

    @property
    def model_identity(self) -> str:
        """The digests of model and adapter: what a state of theirs depends on."""
        files = self.manifest.files
        return " ".join(files[name].sha256 for name in (MODEL, ADAPTER) if name in files)

    @property
    def smoke_path(self) -> Path | None:
        """The smoke cases (edge_agent/evaluation/cases.py), if the bundle has any."""
        return self.path / SMOKE if SMOKE in self.manifest.files else None

    @property
    def smoke_record_path(self) -> Path | None:
        """What the model did with the smoke cases at export (evaluation/smoke.py), if that was written down."""
        return self.path / SMOKE_RECORD if SMOKE_RECORD in self.manifest.files else None

    @property
    def contract(self) -> str:
        """The digest of template, system prompt and tools the model was trained with."""
        return self.manifest.contract

    def require_site(self, site: Site) -> bool:
        """Return whether the model knows just this site from its training; else it has to be tried on it first.

        Raises:
            ContractChanged: it is not for that site. A model for any site is if sites are written down as in its
                training; another if the site has only tools, not devices, that its own site has too; that of a toolset
                is for what this one tells it, to the byte.
        """
        name, any_site = f"bundle {self.manifest.name}", self.manifest.any_site
        if contract_of(site, self.template).digest == self.contract:
            return True
        if self.site.is_toolset or site.is_toolset:
            raise ContractChanged(f"{name} was not trained for {site.name}: {_change(self.site, site)}",
                                  hint="take the toolset that came with it, with other risks, limits and executors; "
                                  "or train for this one")  # fmt: skip
        if any_site:
            require_contract(any_site, format_digest(self.template), name)
            return False
        known = {_without_devices(tool) for tool in tools_of(self.site)}
        for tool in tools_of(site):
            if _without_devices(tool) not in known:
                raise ContractChanged(
                    f"{name} was trained for {self.manifest.site}, where there is no {signature(tool)}",
                    hint="train for this site, or flash a model that is for any site",
                )
        return False

    def narrow(self, site: Site) -> Site:
        """Return a box's own site with the policy that came with the model added to its own, which it cannot widen.

        Raises:
            ContractChanged: as `require_site`.
            RefusedError: the bundle's policy cannot be kept on this site.
        """
        self.require_site(site)
        return narrowed(site, self.site)


def open_bundle(path: Path) -> Bundle:
    """Return the bundle in a folder, or the current one of a box's root, verified.

    Raises:
        UsageError: there is no bundle.
        BundleTampered: a file is missing, added or changed; the message names it.
        BadGguf: the model's header is unsound.
        ContractChanged: this version of Edgewright would say something else to the model than training did.
        UnavailableError: a file cannot be read.
    """
    with hold_bundle(path) as bundle:
        return bundle


@contextmanager
def hold_bundle(path: Path, *, is_read: bool = True) -> Iterator[Bundle]:
    """Open a bundle as `open_bundle` does; until the end no flash cleans it away, and a box's may be flashed anew.

    Args:
        path: the bundle's folder, or a box's root.
        is_read: whether the files' contents are compared; if not, their names and sizes are, and what they say.
    """
    while (descriptor := _hold(folder := find_bundle(path))) is None:
        pass  # a flash cleaned it away just now: `current` leads to another one
    try:
        bundle = read_bundle(folder) if is_read else read_bundle(folder, trusted=_read_manifest(folder).files)
        if is_on_box(folder) and folder.name != bundle.manifest.id:  # there it is named after that
            raise BundleTampered(f"{folder / MANIFEST}: belongs to {bundle.manifest.id}, the folder is {folder.name}")
        yield bundle
    finally:
        os.close(descriptor)


def is_on_box(folder: Path) -> bool:
    """Return whether a bundle's folder is one of a box's, and not in a folder that happens to be called so."""
    return folder.parent.name == BUNDLES and (folder.parent.parent / CURRENT).is_symlink()


def _hold(folder: Path) -> int | None:
    """Return a descriptor that holds a folder until it is closed; None if the folder is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits while a flash removes it
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(folder, error) from error
    os.close(descriptor)
    return None


def read_bundle(folder: Path, trusted: Container[str] = ()) -> Bundle:
    """Return the bundle in a folder, verified but for the contents of files in `trusted`; raises as `open_bundle`."""
    manifest = verify_files(folder, trusted)
    bundle = _read_parts(folder, manifest, require_gguf(folder / MODEL))
    _require_agreement(bundle)
    return bundle


def find_bundle(path: Path) -> Path:
    """Return the folder of the bundle at `path`, which may be a box's root. Raises UsageError if there is none."""
    if (path / MANIFEST).is_file() or (path / MODEL).is_file():
        return path.resolve()
    if (path / CURRENT).is_dir():
        return (path / CURRENT).resolve()
    what = "the link `current` leads nowhere" if (path / CURRENT).is_symlink() else "no bundle is there"
    raise UsageError(f"{path}: {what}", hint="give a bundle, or a box's folder that `edgewright flash` has filled")


def verify_files(folder: Path, trusted: Container[str] = ()) -> Manifest:
    """Return the manifest of a bundle's folder after comparing every file with it.

    Args:
        folder: the bundle's own.
        trusted: names of files whose contents need not be read, since somebody else compares them.

    Raises:
        BundleTampered: a file is missing, added, changed, or no plain file; the message names it.
        UnavailableError: a file cannot be read.
    """
    try:
        manifest = _read_manifest(folder)
        present = {entry.name for entry in folder.iterdir()} - {MANIFEST}
        if strangers := sorted(present - manifest.files.keys()):
            raise BundleTampered(f"{folder / strangers[0]}: the manifest does not list this file")
        for name, entry in manifest.files.items():
            _require_file(folder / name, entry)
            if name not in trusted:
                require_content(folder / name, sha256_of(folder / name), entry)
    except OSError as error:
        raise _unreadable(folder, error) from error
    return manifest


def _unreadable(folder: Path, error: OSError) -> UnavailableError:
    return UnavailableError(f"cannot read the bundle {folder}: {error}", hint="check the disk")


def _require_file(path: Path, entry: FileEntry) -> None:
    if (size_bytes := _plain_size(path)) != entry.bytes:
        raise BundleTampered(f"{path}: {size_bytes} bytes, the manifest says {entry.bytes}", hint=_AGAIN)


def _plain_size(path: Path) -> int:
    """Return a file's size in bytes. Raises BundleTampered if it is none: on a pipe, a reader would wait for ever."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise BundleTampered(f"{path}: the file is missing", hint=_AGAIN) from None
    if not stat.S_ISREG(status.st_mode):
        raise BundleTampered(f"{path}: not a plain file", hint=_AGAIN)
    return status.st_size


def require_content(path: Path, digest: str, entry: FileEntry) -> None:
    """Raise BundleTampered unless a file's SHA-256, which the caller has from reading it, is the manifest's."""
    if digest != entry.sha256:
        raise BundleTampered(f"{path}: the content was changed (SHA-256 {digest[:12]}, "
                             f"the manifest says {entry.sha256[:12]})", hint=_AGAIN)  # fmt: skip


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    _plain_size(path)
    with path.open("rb") as file:
        return parse_manifest(file.read(_MANIFEST_BYTES), str(path))


def parse_manifest(data: bytes, path: str) -> Manifest:
    """Return a manifest from the bytes of its file. Raises BundleTampered, which names `path`, if they are none."""
    try:
        plain = json.loads(data)
        if not isinstance(plain, dict) or plain.pop("sha256", None) != _digest_of(plain):
            raise BundleTampered(f"{path}: does not have its own SHA-256")
        manifest = Manifest.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleTampered(f"{path}: {where} {first['msg']}".replace(":  ", ": ")) from error
    except (ValueError, RecursionError) as error:
        raise BundleTampered(f"{path}: not JSON: {error}") from error
    if manifest.to_bytes() != data:
        raise BundleTampered(f"{path}: not as it was written")
    return manifest


def _digest_of(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _read_parts(folder: Path, manifest: Manifest, header: GgufHeader) -> Bundle:
    try:
        sampling = Sampling.model_validate(json.loads((folder / SAMPLING).read_bytes()))
        template = ChatTemplate(sampling.template, (folder / TEMPLATE).read_text(encoding="utf-8"), sampling.stop)
        system_text = (folder / SYSTEM).read_text(encoding="utf-8")
    except (ValueError, RecursionError) as error:  # pydantic's ValidationError is a ValueError
        raise BundleTampered(f"{folder}: {SAMPLING}, {TEMPLATE} or {SYSTEM} cannot be read: {error}") from error
    site, confidence = load_site(folder / SITE), _confidence(folder, manifest)
    return Bundle(folder, manifest, template, system_text, header, site, confidence)


def _confidence(folder: Path, manifest: Manifest) -> Confidence | None:
    if CONFIDENCE not in manifest.files:
        return None
    try:
        return Confidence.model_validate(json.loads((folder / CONFIDENCE).read_bytes()))
    except (ValueError, RecursionError) as error:
        raise BundleTampered(f"{folder / CONFIDENCE}: cannot be read: {error}") from error


def tools_bytes(tools: Iterable[Tool]) -> bytes:
    """Return tools.json: the tools in the form of OpenAI's API."""
    return (json.dumps([tool.openai() for tool in tools], indent=2, ensure_ascii=False) + "\n").encode()


def _without_devices(tool: Tool) -> str:
    """Return what a model has learned of a tool, whichever devices take it."""
    targets = "by area" if tool.targets else "by device"
    return f"{tool.name} {targets} {', '.join(argument_text(name, schema) for name, schema in tool.input.items())}"


def _change(trained: Site, other: Site) -> str:
    """Return the first thing that another toolset tells a model otherwise than the one it was trained for."""
    if trained.is_toolset != other.is_toolset:
        return "one is a site and the other a toolset"
    known, told = ({tool.name: tool.openai() for tool in tools_of(site)} for site in (trained, other))
    for name, tool in known.items():
        if name not in told:
            return f"{name} is forbidden there" if name in other.functions else f"there is no {name}"
        if tool != told[name]:
            return f"description or parameters of {name} have changed"
    if strangers := [name for name in told if name not in known]:
        return f"{strangers[0]} is new"
    return "the order of the tools has changed" if trained.system == other.system else "the system text has changed"


def _require_agreement(bundle: Bundle) -> None:
    """Require that the bundle's parts, each unchanged, also belong together."""
    contract = contract_of(bundle.site, bundle.template)
    require_contract(bundle.contract, contract.digest, f"bundle {bundle.manifest.name}")
    if contract.system_text != bundle.system_text:
        raise BundleTampered(f"{bundle.path / SYSTEM}: not the system prompt that {SITE} makes")
    if (bundle.path / TOOLS).read_bytes() != tools_bytes(contract.tools):
        raise BundleTampered(f"{bundle.path / TOOLS}: not the tools that {SITE} makes")
    if bundle.header.metadata.get("tokenizer.chat_template") != bundle.template.source:
        raise BundleTampered(f"{bundle.model_path}: its chat template is not {TEMPLATE}")
    trained, header = bundle.model_path, bundle.header
    if bundle.adapter_path:
        trained, header = bundle.adapter_path, require_gguf(bundle.adapter_path)
    require_contract(str(header.metadata.get(CONTRACT_KEY, "")), bundle.contract, str(trained))
