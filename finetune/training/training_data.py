"""What a run trains on and measures on: a site's rows, preference pairs or own conversations, and general rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from devices.site.site import load_site
from edge_agent.evaluation.cases import CASES, CASES_SEED, read_cases
from edge_agent.progress import ProgressBar
from edge_agent.run_facts import read_run_facts
from edge_agent.wire.contract import Contract, require_contract
from finetune.data.encoded_rows import EncodedRows, RowEncoder, encode_rows
from finetune.data.generator import generate_cases
from finetune.data.leakage import find_leaks, require_no_leaks
from finetune.data.preference_pairs import encode_pairs, read_pairs
from finetune.data.rows import Row, read_rows
from finetune.data.toolsets.rows import OwnRow, read_own_rows, unsayable
from finetune.data.toolsets.split import HELD_OUT_SHARE, split_rows
from finetune.data.toolsets.variety import MAKERS, varied_rows
from finetune.recipe import Recipe
from finetune.training.general import GeneralRows, encode_general
from finetune.training.run_folder import base_sha256


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on and measures on; `trained` are the site's rows and the general ones.

    Of preference pairs, rows are the preferred conversations, and `pairs` is what trl takes. Of a toolset, `own` has
    the conversations, trained and held-out ones.
    """

    site: EncodedRows
    held_out: EncodedRows
    general: GeneralRows | None
    trained: EncodedRows
    pairs: list[dict[str, list[int]]]
    own: tuple[list[OwnRow], list[OwnRow]] | None = None


def load_own(recipe: Recipe, contract: Contract, tokenizer: Any, progress: ProgressBar) -> TrainingData:
    """Return own conversations with a toolset, some of them held out by their phrasing."""
    if recipe.any_site or recipe.preference:
        raise UsageError("any_site and preference are for sites; a toolset's rows have tools of their own")
    if recipe.first_run:
        _require_same_adapter(recipe, recipe.first_run)
    rows = read_own_rows(recipe.data, contract)
    wanted = recipe.training.held_out_rows or round(HELD_OUT_SHARE * len(rows))
    trained, left_out = split_rows(rows, wanted)
    copies = varied_rows(trained, load_site(recipe.site), recipe.generate.model_dump(include=set(MAKERS)), recipe.seed)
    own = [*trained, *copies], left_out
    encoder = RowEncoder(contract.template, tokenizer, recipe.training.max_tokens)
    site, held_out = (_encoded(encoder, some) for some in own)
    if not site.token_ids:
        needed = f"training.max_tokens={max(encoder.over)} takes all of them" if encoder.over else ""
        raise UsageError(f"{recipe.data}: no row to train on: all are over training.max_tokens", hint=needed)
    as_it_is = sum(one.is_own for one in rows)
    progress.note(
        f"{len(trained)} conversations, {len(left_out)} more held out; {as_it_is} of all have the toolset's system text"
        + (f"; {len(copies)} copies with other tools" if copies else "")
    )
    if cut := unsayable(rows):
        progress.note(f"{len(cut)} answers are longer than a reply may be, or have < or >: {', '.join(cut[:3])}")
    return _mixed(recipe, contract, tokenizer, (site, held_out), progress, own)


def _encoded(encoder: RowEncoder, rows: Sequence[OwnRow]) -> EncodedRows:
    kept = [found for one in rows if (found := encoder.encode(one.where, one.row.messages))]
    return EncodedRows.of(kept, len(rows) - len(kept))


def load_data(recipe: Recipe, contract: Contract, tokenizer: Any, progress: ProgressBar) -> TrainingData:
    """Return a site's rows or preference pairs. Raises UsageError, GateError: as train_run."""
    _require_unseen(recipe)
    if recipe.first_run:
        _require_same_adapter(recipe, recipe.first_run)
    limit = recipe.training.max_tokens
    if recipe.preference:
        start = Path(recipe.preference.start_from)
        require_contract(read_run_facts(start).contract, contract.digest, f"run {start}")
        encoder = RowEncoder(contract.template, tokenizer, limit)
        pairs, rows = encode_pairs(Path(recipe.data), contract.system_text, encoder)
        progress.note(f"{len(pairs)} pairs, going on from {start}")
        return TrainingData(rows, EncodedRows((), (), 0), None, rows, pairs)
    rows = encode_rows(Path(recipe.data), contract, tokenizer, limit, any_site=recipe.any_site)
    return _mixed(recipe, contract, tokenizer, rows.split(recipe.training.held_out_rows), progress)


def _mixed(
    recipe: Recipe,
    contract: Contract,
    tokenizer: Any,
    rows: tuple[EncodedRows, EncodedRows],
    progress: ProgressBar,
    own: tuple[list[OwnRow], list[OwnRow]] | None = None,
) -> TrainingData:
    """Return rows to train on and held-out ones with the general rows that the recipe wants among them."""
    (site, held_out), limit = rows, recipe.training.max_tokens
    trained, general = site, None
    if recipe.general:
        encoder = RowEncoder(contract.template, tokenizer, limit)
        general = encode_general(recipe.general, len(site.token_ids), encoder, recipe.seed)
        mixed = general.mixed
        trained = EncodedRows(site.token_ids + mixed.token_ids, site.labels + mixed.labels, site.dropped)
        share = len(mixed.token_ids) / len(trained.token_ids)
        progress.note(
            f"{len(mixed.token_ids)} general rows, {share:.0%} of all (asked for {recipe.general.share:.0%}); "
            f"{general.rejected} could not be used"
        )
    progress.note(
        f"{len(trained.token_ids)} rows ({trained.dropped} longer than {limit} tokens dropped), "
        f"{trained.tokens:,} tokens an epoch, {trained.trained_tokens:,} of them trained"
    )
    return TrainingData(site, held_out, general, trained, [], own)


def _require_same_adapter(recipe: Recipe, first: Path) -> None:
    """Raise UsageError unless the adapter of an earlier run can be trained on as the recipe says."""
    facts = read_run_facts(first)
    try:
        config = json.loads((first / "adapter" / "adapter_config.json").read_bytes())
        found = {name: config[name] for name in ("r", "lora_alpha", "use_rslora", "use_dora")}
        targets = sorted(config["target_modules"])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{first}: its adapter cannot be read: {error}") from error
    lora = recipe.lora
    wanted = {"r": lora.rank, "lora_alpha": lora.alpha, "use_rslora": lora.rslora, "use_dora": lora.dora}
    if found != wanted or targets != sorted(lora.targets):
        given = ", ".join(f"{name} {value}" for name, value in found.items())
        raise UsageError(
            f"start_from: the adapter of {first} is another than this recipe's",
            hint=f"lora must be as there: {given}, targets {', '.join(targets)}",
        )
    ours, theirs = base_sha256(recipe.base_path_or_name), facts.base_sha256
    weights = [name for name in ours.keys() & theirs.keys() if name.endswith(".safetensors")]
    if any(ours[name] != theirs[name] for name in weights):
        raise UsageError(f"start_from: {first} was trained on another base than {recipe.base}")


def _require_unseen(recipe: Recipe) -> None:
    """Raise GateError if the data has requests of the evaluation's: of the recipe's cases, or the site's own."""
    site, data = load_site(recipe.site), Path(recipe.data)
    cases = read_cases(Path(recipe.cases)) if recipe.cases else generate_cases(site, CASES, CASES_SEED)
    rows = (Row((), pair.prompt) for _, pair in read_pairs(data)) if recipe.preference else read_rows(data)
    require_no_leaks(find_leaks(rows, cases, site), recipe.data)
