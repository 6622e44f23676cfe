"""The model card: what a bundle's model was made from and what its gates measured, for people. Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from edge_agent.bundle import CARD, MANIFEST, find_bundle
from edge_agent.engine.gguf_header import require_gguf
from export.convert.gguf_writer import METADATA_PREFIX

CARD_KEY, EXPORT_KEY = "card", "export"  # in a GGUF file's metadata, after METADATA_PREFIX


def card_of(export: Mapping[str, Any], site_title: str) -> str:
    """Return the model card.

    Args:
        export: what export_run returns.
        site_title: of the site that the model was trained for.
    """
    gates, run, quant = export["gates"], export["run"], export["quant"]
    file = export["gguf"][quant]
    merged = {"nf4": "what NF4 keeps of the base"}.get(export["merge_base"], "the base as it is")
    rows = [
        ("base model", f"`{Path(export['base']['path']).name}`, {_hashes(export['base']['sha256'])}"),
        ("adapter", _hashes(export["adapter"]["sha256"])),
        ("applied to" if export["is_unmerged"] else "merged into", merged),
        ("training data", f"{run['data'].get('rows', '?')} rows, SHA-256 `{run['data'].get('sha256', '?')}`"),
        ("chat template", f"{run['template']}"),
        ("contract", f"`{export['contract']}` (template, system prompt and tools)"),
        ("quantization", f"{quant}, {file['bytes'] / 1e6:.1f} MB"),
        ("made", f"{export['time']}, with {', '.join(f'{k} {v}' for k, v in export['versions'].items() if v)}"),
    ]
    return f"""# {export["name"]}

A language model that works the devices of {site_title}, made by Edgewright. It runs with no network.

| | |
|---|---|
{_table(rows)}

## What was proved

| gate | measured | limit |
|---|---|---|
{_table(_gate_rows(gates, quant))}

KL divergences are in nats a token; "first choices" is how often both prefer the same token. Not proved: that the model
was trained well, or does anything sensible with requests unlike those of its training.
{_evaluation(gates.get("tasks"))}
## Use

`edgewright flash` puts the bundle on a box, `edgewright run` talks to it. What may be done is decided by the site's
policy, which the broker on the box enforces, not the model.

## Recipe

```yaml
{export["recipe"].strip()}
```
"""


def card_in(path: Path) -> str:
    """Return the model card of a bundle, of a box's current one, or in a GGUF file.

    Raises:
        UsageError: there is none.
    """
    if path.is_file():
        card = require_gguf(path).metadata.get(METADATA_PREFIX + CARD_KEY)
        if card is None:
            raise UsageError(f"{path} has no model card", hint="only the model in a bundle has one, after its gates")
        return str(card)
    folder = find_bundle(path)
    try:
        return (folder / CARD).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder} has no model card: {error}", hint=f"a bundle has a {MANIFEST}") from error


def _gate_rows(gates: Mapping[str, Any], quant: str) -> list[tuple[str, ...]]:
    limits = gates["limits"]
    rows: list[tuple[str, ...]] = []
    texts, logits = gates["texts"], gates["logits"]
    rows.append(("template", "same bytes in Hugging Face and in the file", "same"))
    rows.append(("token ids", f"same for {texts['tokens']:,} tokens of {texts['texts']} texts", "same"))
    rows.append(("end of turn", "ends a generation", "does"))
    allowed = f"KL {limits['logits_kl']:g}, first choices {limits['logits_top1']:g}"
    rows.append(("F16 file against the trained model", _measured(logits), allowed))
    for key, title in (("beyond_context", "beyond the original context"), ("adapter", "adapter's own file")):
        if key in gates:
            rows.append((title, _measured(gates[key]), allowed))
    for part, found in gates["quantized"].get(quant, {}).items():
        limit = {"all": f"KL {limits['quant_kl']:g}"}.get(part, "")
        if part == "call":
            limit = f"KL {limits['call_kl']:g}, first choices {limits['call_top1']:g}"
        rows.append((f"{quant} against F16, {part}", _measured(found), limit))
    if ending := gates["endings"].get(quant):
        rows.append(("replies that end", f"{ending['ended']} of {ending['replies']}", f"share {limits['endings']:g}"))
    return rows


def _measured(found: Mapping[str, Any]) -> str:
    return f"KL {found['mean_kl']:.1e}, first choices {found['top1_agreement']:.3f} of {found['positions']}"


def _evaluation(tasks: Mapping[str, Any] | None) -> str:
    if not tasks:
        return ""
    rows = []
    for name, found in tasks.items():
        if name != "cases":
            change = found.get("change")
            interval = f"{change['low']:+.1%} to {change['high']:+.1%}" if change else ""
            rows.append((name, f"{found['share']:.1%} ({found['low']:.1%} to {found['high']:.1%})", interval))
    return f"""
## Evaluation

{tasks["cases"]} held-out tasks, 95 % intervals; the change against the Hugging Face model is a paired bootstrap.

| model | tasks done | change |
|---|---|---|
{_table(rows)}
"""


def _hashes(sha256: Mapping[str, str]) -> str:
    return ", ".join(f"{name} `{digest[:16]}`" for name, digest in sha256.items())


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
