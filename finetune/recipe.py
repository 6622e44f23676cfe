"""Recipes: everything that decides a training run, in one YAML file, and `key=value` overrides of it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from ruamel.yaml import YAML

from devices.errors import UsageError
from devices.yaml_file import (
    Override,
    Strict,
    overridden_model,
    parse_override,
    plain_values,
    read_yaml,
    shipped_path,
)
from edge_agent.base_models import base_path
from edge_agent.evaluation.gate_limits import GateLimits
from finetune.data.people.intents import CREDIT
from finetune.data.plan_kinds import ALL_MAKERS
from finetune.data.random_sites import Sites

RECIPES_FOLDER = Path(__file__).parent / "recipes"
ADAPTERS_FOLDER = Path(__file__).parent / "adapters"
STARTER = "starter"
STARTER_FOLDER = Path(__file__).parent / "starter"
# The seven projections of Llama, Mistral, Qwen and Gemma. Phi-3 fuses them: qkv_proj, o_proj, gate_up_proj, down_proj.
SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def path_or_name(base: str) -> str:
    """Return the folder or hub name of a base to load; for `starter` and `smollm2` the folder of theirs.

    Raises:
        UsageError: a base with a short name that was not imported yet.
    """
    return str(STARTER_FOLDER) if base == STARTER else base_path(base)


class Lora(Strict):
    """The adapter: low-rank updates beside the frozen projections, scaled by alpha / rank.

    `rslora` scales by alpha / sqrt(rank) instead; `dora` trains the length of each row of a weight as well.
    """

    rank: int = Field(default=16, ge=1, le=512)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, le=0.5)
    targets: tuple[str, ...] = Field(default=SEVEN_PROJECTIONS, strict=False, min_length=1)
    rslora: bool = False
    dora: bool = False


class Training(Strict):
    """How long and how fast. One step sees batch_rows * accumulate rows; epochs and steps exclude each other.

    No more than `batch_tokens` of a batch pass through the model at once: a batch of more goes in parts, whose
    gradients add up, so that what is learnt does not change. `auto` is 8,192, halved down to 1,024 until it fits.

    The last `held_out_rows` of the data are not trained on: every `held_out_every` steps their loss is measured, the
    adapter that did best is the one that is kept, and after `patience` measurements without a better one training ends.

    `is_compiled` has torch compile the layers at the first step, which pays from about 40 steps on.
    """

    epochs: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, gt=0)
    batch_rows: int = Field(default=4, ge=1)
    batch_tokens: Annotated[int, Field(ge=16)] | Literal["auto"] = "auto"
    accumulate: int = Field(default=1, ge=1)
    max_tokens: int = Field(default=2048, ge=16)
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(default=10, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    optimizer: Literal["paged_adamw_8bit", "adamw_8bit", "adamw"] = "paged_adamw_8bit"
    share_prefix: bool = True
    packing: bool = False
    gradient_checkpointing: bool = False
    is_compiled: bool = False
    checkpoint_every: int = Field(default=100, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    held_out_rows: int = Field(default=0, ge=0)
    held_out_every: int = Field(default=50, ge=1)
    patience: int | None = Field(default=None, ge=1)
    tensorboard: bool = False

    @model_validator(mode="after")
    def _require_relations(self) -> Training:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        if self.patience is not None and not self.held_out_rows:
            raise ValueError("patience needs held_out_rows to measure on")
        if self.packing and self.share_prefix:
            raise ValueError("packing and share_prefix exclude each other; set one of them to false")
        if self.gradient_checkpointing and self.share_prefix:
            raise ValueError("gradient_checkpointing keeps no prefix to share; set one of them to false")
        return self


class General(Strict):
    """General instruction data mixed in, so that the model keeps what it could do.

    `data` is a file, a folder or a Hub id in any format; `share` of the rows trained on come from it. Its last
    `held_out_rows` are measured on before and after training; a loss that rose by more than `max_rise` nats a token
    fails the run.
    """

    data: str = Field(min_length=1)
    share: float = Field(gt=0, lt=1)
    held_out_rows: int = Field(default=100, ge=1)
    max_rise: float | None = Field(default=None, ge=0)


class Generate(Strict):
    """How `edgewright data generate --recipe` makes the data; of a toolset, which copies training adds.

    Attributes:
        rows: conversations.
        seed: decides all.
        renamed: share of the states they start from in which tools and arguments have other names. Of a toolset, here
            and below, how many such copies are added for each conversation that has its system text.
        distractors: share in which there are other devices, or tools, beside its own.
        shuffled: share in which devices and tools stand in another order.
        irrelevance: of a toolset, copies in which the tools that are called are not there, and the answer says so.
        kinds: how often each kind of exchange is drawn, against the usual weight of the others; 0 leaves it out.
        asks: whether requests in people's words (finetune/asks) are among them, in conversations that go on.
        intents: a language whose sentences of Home Assistant's community join those requests; needs `asks`.
        sites: random sites to make them of, instead of the recipe's one; then only `rows`, `seed`, `asks` and
            `intents` count.
    """

    rows: int = Field(default=6000, ge=1)
    seed: int = Field(default=1, ge=0)
    renamed: float = Field(default=0.0, ge=0, le=1)
    distractors: float = Field(default=0.0, ge=0, le=1)
    shuffled: float = Field(default=0.0, ge=0, le=1)
    irrelevance: float = Field(default=0.0, ge=0, le=1)
    kinds: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    asks: bool = False
    intents: str | None = Field(default=None, min_length=1)
    sites: Sites | None = None

    @field_validator("kinds")
    @classmethod
    def _require_known(cls, kinds: dict[str, float]) -> dict[str, float]:
        for kind in kinds:
            if kind not in ALL_MAKERS:
                raise ValueError(f"no kind of exchange is called {kind!r}; there are {', '.join(ALL_MAKERS)}")
        return kinds

    @model_validator(mode="after")
    def _require_asks(self) -> Generate:
        if self.intents and not self.asks:
            raise ValueError("intents join the requests of asks; set asks to true")
        return self


class Preference(Strict):
    """A second stage on preference pairs (DPO): `data` has pairs, as `edgewright data pairs` writes them.

    Training goes on from the adapter of the run `start_from`, which is also what it may not stray far from: `beta` is
    how much that counts.
    """

    start_from: str = Field(min_length=1)
    beta: float = Field(default=0.1, gt=0)


class Recipe(Strict):
    """A whole recipe. Paths are relative to the working directory.

    Attributes:
        base: a folder, a hub name, or `starter`, the small base that ships with Edgewright.
        site: what the rows are of. With `any_site` they are of any sites, and what is trained runs on all; `site` is
            then the one that it is tested on. A toolset stands here too, or under the key `tools`.
        start_from: a run from whose adapter training goes on, or the name of an adapter that ships with Edgewright.
        cases: a file of evaluation cases that the data must not have seen; the site's own held-out ones if left out.
        gates: for the export.
    """

    schema_: Literal["recipe/v1"] = Field(alias="schema")
    base: str = Field(min_length=1)
    site: str = Field(min_length=1)
    any_site: bool = False
    start_from: str | None = None
    data: str = Field(min_length=1)
    cases: str | None = None
    out: str = Field(min_length=1)
    template: str = "chatml"
    seed: int = Field(default=1, ge=0, lt=2**32)
    quantization: Literal["nf4", "none"] = "nf4"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    generate: Generate = Generate()
    lora: Lora = Lora()
    general: General | None = None
    preference: Preference | None = None
    gates: GateLimits = GateLimits()
    training: Training

    @model_validator(mode="before")
    @classmethod
    def _take_tools(cls, plain: Any) -> Any:
        """Put a toolset into the place of the site: what is trained is of the one or of the other."""
        if isinstance(plain, dict) and "tools" in plain:
            return {key: value for key, value in plain.items() if key != "tools"} | {"site": plain["tools"]}
        return plain

    @model_validator(mode="after")
    def _require_pairs_alone(self) -> Recipe:
        training = self.training
        if self.preference and self.start_from:
            raise ValueError("preference has a start_from of its own")
        if self.preference and (self.general or training.held_out_rows or training.share_prefix or training.packing):
            raise ValueError("preference goes without general, held_out_rows, share_prefix and packing")
        return self

    @property
    def first_run(self) -> Path | None:
        """The folder of the run that training goes on from, if there is one."""
        if self.start_from is None:
            return None
        shipped = ADAPTERS_FOLDER / self.start_from
        return shipped if shipped.is_dir() else Path(self.start_from)

    @property
    def base_path_or_name(self) -> str:
        """The folder or hub name to load; the packaged folder for `starter`."""
        return path_or_name(self.base)

    def to_yaml(self) -> str:
        """Return the complete recipe, defaults included, as a recipe file; it names whose sentences are in the data."""
        text = io.StringIO(f"# generate.intents: {CREDIT}\n" if self.generate.intents else "")
        text.seek(0, io.SEEK_END)
        YAML(typ="rt", pure=True).dump(_plain_tuples(self.model_dump(by_alias=True, exclude_none=True)), text)
        return text.getvalue()


def recipe_path(name_or_path: str | Path) -> Path:
    """Return the file of a recipe that ships with Edgewright, by name, or the path as it is.

    Raises:
        UsageError: no shipped recipe has the name.
    """
    return shipped_path(name_or_path, RECIPES_FOLDER, "recipe")


def load_recipe(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe by shipped name or path, and lay `key=value` overrides over it.

    Args:
        name_or_path: `home`, or a .yaml file.
        overrides: such as `training.steps=20`; the value is read as YAML.

    Raises:
        UsageError: no such recipe, not YAML, or a wrong key or value; the message has file and line, or the override.
    """
    source = read_yaml(recipe_path(name_or_path), "recipe")
    if not isinstance(source.root, dict):
        raise UsageError(f"{source.path}: a recipe is a mapping with schema, base, site, data, out and training")
    root = plain_values(source.root)
    given = [parse_override(text, "training.steps=20") for text in overrides]
    for one in given:
        _override(root, one)
    return overridden_model(source, root, Recipe, given)


def _override(root: dict[str, Any], override: Override) -> None:
    """Set a nested value; epochs and steps replace each other, as only one of them may be given."""
    override.set_in(root)
    if override.keys[:-1] == ("training",):
        root["training"].pop({"steps": "epochs", "epochs": "steps"}.get(override.keys[-1], ""), None)


def _plain_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain_tuples(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
