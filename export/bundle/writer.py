"""Write a bundle: the files a box needs, then the manifest, then the folder's name. edge_agent/bundle.py reads it."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.durable import sha256_of, sync
from devices.errors import UsageError
from devices.site.site import load_site
from edge_agent import bundle as layout
from edge_agent.bundle import FileEntry, Manifest, Sampling
from edge_agent.evaluation.conversations.turn_smoke import TurnSmoke
from edge_agent.evaluation.smoke import Smoke
from edge_agent.wire.chat_template import ChatTemplate
from edge_agent.wire.contract import contract_of
from export.bundle.model_card import CARD_KEY, EXPORT_KEY, card_of
from export.bundle.stamp import copy_stamped
from export.convert.gguf_writer import METADATA_PREFIX


@dataclass(frozen=True)
class Parts:
    """What goes into a bundle.

    `adapter` is the file of a LoRA adapter over the model, or None. `export` becomes export.json.
    """

    name: str
    quant: str
    model: Path
    site: Path
    template: ChatTemplate
    smoke: Smoke | TurnSmoke | None
    export: dict[str, Any]
    adapter: Path | None = None


def write_bundle(parts: Parts, out: Path) -> Manifest:
    """Write a bundle's folder, whole or not at all; an older bundle of that name is replaced.

    Raises:
        UsageError: `out` is something else than a bundle.
    """
    require_writable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.part")
    aside.mkdir()
    try:
        manifest = _fill(aside, parts)
        _put_in_place(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


def put_file(bundle: Path, name: str, data: bytes) -> Manifest:
    """Put a file into a bundle, whole or not at all, in the place of an older one; its other files stay as they are.

    Raises:
        UsageError: it is on a box, where nothing may change.
    """
    if layout.is_on_box(bundle):
        raise UsageError(f"{bundle} is on a box", hint="change the bundle that was exported, and flash it")
    manifest = layout.verify_files(bundle)
    aside = bundle.with_name(f".{bundle.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        shutil.copytree(bundle, aside, copy_function=os.link)
        for changed in (name, layout.MANIFEST):
            (aside / changed).unlink(missing_ok=True)
        (aside / name).write_bytes(data)
        files = manifest.files | {name: FileEntry(sha256=sha256_of(aside / name), bytes=len(data))}
        manifest = manifest.model_copy(update={"files": dict(sorted(files.items()))})
        (aside / layout.MANIFEST).write_bytes(manifest.to_bytes())
        for changed in (name, layout.MANIFEST):
            sync(aside / changed)
        _put_in_place(aside, bundle)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


def _put_in_place(aside: Path, out: Path) -> None:
    sync(aside)
    if out.exists():
        old = aside.with_suffix(".old")
        out.rename(old)
        aside.rename(out)
        shutil.rmtree(old)
    else:
        aside.rename(out)
    sync(out.parent)


def require_writable(out: Path) -> None:
    """Raise UsageError unless `out` is free, an empty folder or an older bundle."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"{out} is not a folder", hint="choose another --out")
    if out.is_dir() and any(out.iterdir()) and not (out / layout.MANIFEST).is_file():
        raise UsageError(f"{out} is a folder with other things in it", hint="choose another --out")


def _fill(folder: Path, parts: Parts) -> Manifest:
    site = load_site(parts.site)
    contract = contract_of(site, parts.template)
    sampling = Sampling(template=parts.template.name, stop=parts.template.end_of_turn)
    card = card_of(parts.export, site.title)
    in_model = {CARD_KEY: card, EXPORT_KEY: json.dumps(parts.export, ensure_ascii=False)}
    strings = {METADATA_PREFIX + key: text for key, text in in_model.items()}
    if parts.adapter:
        shutil.copyfile(parts.model, folder / layout.MODEL)  # the same for every adapter over it
        copy_stamped(parts.adapter, folder / layout.ADAPTER, strings)
    else:
        copy_stamped(parts.model, folder / layout.MODEL, strings)
    shutil.copyfile(parts.site, folder / layout.SITE)
    if parts.smoke:
        parts.smoke.write(folder)
    texts = {
        layout.TEMPLATE: parts.template.source.encode(),
        layout.SYSTEM: contract.system_text.encode(),
        layout.TOOLS: layout.tools_bytes(contract.tools),
        layout.SAMPLING: _json_bytes(sampling.model_dump()),
        layout.EXPORT: _json_bytes(parts.export),
        layout.CARD: card.encode(),
    }
    for name, data in texts.items():
        (folder / name).write_bytes(data)
    files = {}
    for path in sorted(folder.iterdir()):
        sync(path)
        files[path.name] = FileEntry(sha256=sha256_of(path), bytes=path.stat().st_size)
    manifest = Manifest(
        schema="bundle/v1",
        name=parts.name,
        site=site.name,
        any_site=str(parts.export.get("run", {}).get("any_site", "")),
        quant=parts.quant,
        contract=contract.digest,
        files=files,
    )
    (folder / layout.MANIFEST).write_bytes(manifest.to_bytes())
    sync(folder / layout.MANIFEST)
    return manifest


def _json_bytes(plain: Any) -> bytes:
    return (json.dumps(plain, indent=2, ensure_ascii=False) + "\n").encode()
