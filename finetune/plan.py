"""What a training run will take, before it starts: memory, steps and time, from shapes alone.

Activations are counted, not computed: the largest batch runs on PyTorch's meta device, where tensors have shapes and no
contents, and what autograd keeps for the backward pass is added up. Time is that of one layer with random weights,
forward and backward, measured now, times layers and tokens; the head and the optimizer are left out.

Does not guard against: what others use of the GPU, holes in the allocator's memory, kernels that keep more.
"""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from edge_agent.engine import common_length
from finetune.batch_order import BatchOrder, runs_of
from finetune.prefix_loss import HEAD_TOKENS, MIN_SHARED_TOKENS
from finetune.quantized_base import Machine, add_adapter, empty_base, load_base
from finetune.recipe import Recipe
from finetune.rows import prompt_length
from finetune.training_rows import EncodedRows, trained_count

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight, its block's 8-bit scale, and the 32-bit scale of 256 scales
OPTIMIZER_BYTES = {"paged_adamw_8bit": 2, "adamw_8bit": 2, "adamw": 8}  # of a trained weight: two moments
TIMED_TOKENS, TIMED_PASSES = 2048, 3
FORWARD_SHARE = 1 / 3  # of a forward and a backward pass
COUNTING = "edgewright_counting"


@dataclass(frozen=True)
class Memory:
    """The most bytes that training holds at once, by what they are for."""

    base: int
    adapter: int
    activations: int
    head: int
    workspace: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.base + self.adapter + self.activations + self.head + self.workspace


@dataclass(frozen=True)
class Plan:
    """A run that has not started: `tokens` are those that pass through the layers, of all its steps; time in s."""

    memory: Memory
    steps: int
    tokens: int
    seconds: float


class Planner:
    """Plans runs of one base and its rows; a plan of other settings shows what they would save."""

    def __init__(self, machine: Machine, rows: EncodedRows, config: Any) -> None:
        """Args: config: of the base, a transformers PretrainedConfig."""
        self._machine, self._rows, self._config = machine, rows, config

    def plan(self, recipe: Recipe) -> Plan:
        """Return the plan of a recipe. Raises UsageError if a LoRA target names no layer of the base."""
        training = recipe.training
        batches = list(self._batches(recipe))
        epoch_steps = math.ceil(len(batches) / training.accumulate)
        steps = training.steps or math.ceil(epoch_steps * (training.epochs or 1.0))
        epochs = steps / epoch_steps
        tokens = round(epochs * sum(evaluated for evaluated, _ in batches))
        return Plan(
            self.memory(recipe), steps, tokens, tokens * self._config.num_hidden_layers * self._layer_seconds(recipe)
        )

    def plan_pairs(self, recipe: Recipe) -> Plan:
        """Return the plan of a recipe with preference pairs; the rows are both replies of each.

        A batch has two rows for each pair, and the reference passes over them once more, forward only.
        """
        training = recipe.training.model_copy(update={"batch_rows": 2 * recipe.training.batch_rows})
        plan = self.plan(recipe.model_copy(update={"training": training}))
        return replace(plan, seconds=plan.seconds * (1 + FORWARD_SHARE))

    def _batches(self, recipe: Recipe) -> Iterator[tuple[int, int]]:
        """Yield of each batch of the first epoch the tokens that pass through the layers, and the trained ones."""
        training, rows = recipe.training, self._rows
        lengths = [len(ids) for ids in rows.token_ids]
        if training.packing:
            packs = math.ceil(sum(lengths) / training.max_tokens)
            for _ in range(math.ceil(packs / training.batch_rows)):
                yield training.max_tokens * training.batch_rows, training.max_tokens * training.batch_rows
            return
        runs = runs_of(rows) if training.share_prefix else [[row] for row in range(len(lengths))]
        order = list(BatchOrder(runs, lengths, training.batch_rows, recipe.seed))
        for start in range(0, len(order), training.batch_rows):
            batch = order[start : start + training.batch_rows]
            shared = self._shared(batch) if training.share_prefix else 0
            trained = sum(trained_count(rows.labels[row]) for row in batch)
            yield shared + len(batch) * (max(lengths[row] for row in batch) - shared), trained

    def _shared(self, batch: Sequence[int]) -> int:
        """Return how many leading tokens finetune/prefix_loss.py evaluates once."""
        first = self._rows.token_ids[batch[0]]
        prompt = min(prompt_length(self._rows.labels[row]) for row in batch)
        shared = min(prompt, *(common_length(first, self._rows.token_ids[row]) for row in batch)) - 1
        return shared if len(batch) > 1 and shared >= MIN_SHARED_TOKENS else 0

    def memory(self, recipe: Recipe) -> Memory:
        """Return the memory that the largest batch of a recipe needs. Raises UsageError as `plan`."""
        size, layers = self._machine.dtype.itemsize, self._config.num_hidden_layers
        tokens, trained = max(self._batches(recipe))
        one, two = (self._measure(recipe, count, tokens) for count in (1, 2))
        base, adapter, kept = (first + (layers - 1) * (second - first) for first, second in zip(one, two, strict=True))
        if recipe.training.gradient_checkpointing:
            kept = two[2] - one[2] + layers * tokens * self._config.hidden_size * size
        width, inner = self._config.hidden_size, self._config.intermediate_size
        return Memory(
            base=base,
            adapter=adapter * (8 + OPTIMIZER_BYTES[recipe.training.optimizer]),
            activations=kept,
            head=min(trained, HEAD_TOKENS) * self._config.vocab_size * (size + 8),
            workspace=(3 * tokens * inner + (width * inner if recipe.quantization == "nf4" else 0)) * size,
        )

    def _measure(self, recipe: Recipe, layers: int, tokens: int) -> tuple[int, int, int]:
        """Return of a model with so many layers the base's bytes, the adapter's weights, and the bytes kept."""
        with torch.device("meta"):
            model = add_adapter(empty_base(with_layers(self._config, layers), self._machine.dtype), recipe.lora)
        linear = {
            f"{name}.weight"
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head")
        }
        base = sum(
            weight.numel() * (NF4_BYTES if recipe.quantization == "nf4" and name in linear else weight.itemsize)
            for name, weight in model.named_parameters()
            if not weight.requires_grad
        )
        adapter, _ = model.get_nb_trainable_parameters()
        return round(base), adapter, kept_bytes(model.to(self._machine.dtype), tokens)

    def _layer_seconds(self, recipe: Recipe) -> float:
        """Return the time a layer takes for a token, forward and backward, as this machine trains it."""
        config = with_layers(self._config, 1)
        config.vocab_size = 256
        config.pad_token_id = config.bos_token_id = config.eos_token_id = None
        with tempfile.TemporaryDirectory() as folder:
            empty_base(config, self._machine.dtype).save_pretrained(folder)
            timed = recipe.model_copy(update={"base": folder})
            model = add_adapter(load_base(timed, self._machine.device, self._machine.dtype), recipe.lora)
        causal = model.get_base_model()
        causal.enable_input_require_grads()
        if recipe.training.gradient_checkpointing:
            causal.activation_checkpointing_enable({"use_reentrant": False})
        ids = torch.zeros(1, TIMED_TOKENS, dtype=torch.long, device=self._machine.device)
        best = math.inf
        for _ in range(TIMED_PASSES):
            started_s = time.monotonic()
            with torch.autocast(self._machine.device, self._machine.dtype):
                hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state
            hidden.float().sum().backward()
            float(hidden.detach()[0, 0, 0])  # a GPU's work is over when a number of it is read
            best = min(best, time.monotonic() - started_s)
        return best / TIMED_TOKENS

    def savings(self, recipe: Recipe) -> list[tuple[str, int]]:
        """Return settings that would need less memory, with the bytes saved, most first."""
        training, lora = recipe.training, recipe.lora
        changes: dict[str, dict[str, Any]] = {
            "training.gradient_checkpointing=true training.share_prefix=false": {
                "training": training.model_copy(update={"gradient_checkpointing": True, "share_prefix": False})
            },
            f"training.batch_rows={training.batch_rows // 2} training.accumulate={training.accumulate * 2}": {
                "training": training.model_copy(
                    update={"batch_rows": max(1, training.batch_rows // 2), "accumulate": training.accumulate * 2}
                )
            },
            "quantization=nf4": {"quantization": "nf4"},
            "training.optimizer=paged_adamw_8bit": {
                "training": training.model_copy(update={"optimizer": "paged_adamw_8bit"})
            },
            f"lora.rank={lora.rank // 2}": {"lora": lora.model_copy(update={"rank": max(1, lora.rank // 2)})},
        }
        now = self.memory(recipe).total
        saved = [(text, now - self.memory(recipe.model_copy(update=change)).total) for text, change in changes.items()]
        return sorted(((text, count) for text, count in saved if count > 0), key=lambda item: -item[1])


def kept_bytes(model: Any, tokens: int) -> int:
    """Return the bytes that autograd keeps of a forward pass of one row through the layers, head not included.

    Args:
        model: a peft model on the meta device, its adapter in the dtype of the passes.
        tokens: of the row.
    """
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    causal = model.get_base_model()
    causal.config._attn_implementation = COUNTING
    causal.enable_input_require_grads()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
        output = causal.base_model(input_ids=ids, use_cache=False)  # holds the graph, and so every kept tensor
    assert output is not None
    return sum(storage.nbytes() for storage in kept.values())


class _FlashShapes(torch.autograd.Function):
    """Keeps for its backward pass what a fused attention keeps: queries, keys, values and the output."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output)
        return output


def _counting_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **_: Any
) -> tuple[Any, None]:
    return _FlashShapes.apply(query, key, value).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(COUNTING, _counting_attention)


def with_layers(config: Any, layers: int) -> Any:
    """Return a configuration with another number of layers."""
    changed = copy.deepcopy(config)
    changed.num_hidden_layers = layers
    if getattr(changed, "layer_types", None):  # Qwen and others say of each layer what kind it is
        changed.layer_types = changed.layer_types[:layers]
    return changed


def size_text(count: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
