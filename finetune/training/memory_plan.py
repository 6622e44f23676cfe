"""What a training run will take, before it starts: memory, steps and time, from shapes alone.

Memory is counted, not computed: the largest part of a batch passes through models of one layer and of two
(step_memory.py), and each further layer takes what the second one did. Time is that of one layer with random
weights, forward and backward, measured now, times layers and tokens; the head and the optimizer are left out.

Does not guard against: what others use of the GPU, holes in the allocator's memory, kernels that keep more.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edge_agent.engine.engine import common_length
from edge_agent.engine.free_memory import free_bytes, resident_bytes, share_of_process
from finetune.data.encoded_rows import EncodedRows, trained_count
from finetune.data.rows import prompt_length
from finetune.recipe import Recipe
from finetune.training.batch_order import BatchOrder, runs_of
from finetune.training.prefix_loss import MIN_SHARED_TOKENS, cut_rows, outgrows_window
from finetune.training.quantized_base import Machine, add_adapter, empty_base, load_base
from finetune.training.step_memory import Shape, StepCounter, with_layers

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight, its block's 8-bit scale, and the 32-bit scale of 256 scales
OPTIMIZER_BYTES = {"paged_adamw_8bit": 2, "adamw_8bit": 2, "adamw": 8}  # of a trained weight: two moments
TRAINED_BYTES = 4 + 4  # a trained weight and its gradient
AUTO_TOKENS = (8192, 4096, 2048, 1024)  # what training.batch_tokens=auto tries, in this order
PLENTY, KEPT = 2.5, 1.75  # times what is needed: to have for keeping freed memory, and what that took at most
AUTO_MARGIN = 1.1  # a plan is right within a tenth
TIMED_TOKENS, TIMED_PASSES = 2048, 3
FORWARD_SHARE = 1 / 3  # of a forward and a backward pass


@dataclass(frozen=True)
class Memory:
    """The most bytes that training holds at once, by what they are for.

    Attributes:
        base: its frozen weights.
        adapter: weights, gradients and what the optimizer keeps of them.
        activations: what all layers keep for the backward pass.
        temporaries: what comes and goes: a chunk of logits, gradients on their way, a weight out of its four bits.
        libraries: what the process has before: its libraries and rows. None of it is the GPU's.
    """

    base: int
    adapter: int
    activations: int
    temporaries: int
    libraries: int

    @property
    def needed(self) -> int:
        """What training still takes, beside what the process has."""
        return self.base + self.adapter + self.activations + self.temporaries

    @property
    def total(self) -> int:
        """All of them."""
        return self.needed + self.libraries


@dataclass(frozen=True)
class Plan:
    """A run that has not started: `tokens` are those that pass through the layers, of all its steps; time in s.

    `batch_tokens` is what the recipe says, or what its `auto` has become; `free` what this machine has, if it says so.
    `has_plenty` says that a CPU keeps freed memory between passes, and then takes up to KEPT times what is needed.
    """

    memory: Memory
    steps: int
    tokens: int
    seconds: float
    batch_tokens: int
    free: int | None
    has_plenty: bool


def free_for(machine: Machine) -> int | None:
    """Return the bytes that training may take on this machine; None where it does not say."""
    if machine.device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    free = free_bytes()
    return None if free is None else free // share_of_process()


class Planner:
    """Plans runs of one base and its rows; a plan of other settings shows what they would save."""

    def __init__(self, machine: Machine, rows: EncodedRows, config: Any, *, replies: int = 1) -> None:
        """Args: config: of the base, a transformers PretrainedConfig; replies: 2 if rows are both of preference pairs.

        A batch then has two rows for each pair, and the reference passes over them once more, forward only.
        """
        self._machine, self._rows, self._config, self._replies = machine, rows, config, replies
        self._counters: dict[Any, StepCounter] = {}
        self._peaks: dict[Any, int] = {}

    def plan(self, recipe: Recipe, free: int | None = None) -> Plan:
        """Return the plan of a recipe, where so many bytes are free. Raises UsageError if a LoRA target is no layer."""
        recipe = self.fit(recipe, free)
        training = recipe.training
        batches = list(self._batches(recipe))
        epoch_steps = math.ceil(len(batches) / training.accumulate)
        steps = training.steps or math.ceil(epoch_steps * (training.epochs or 1.0))
        epochs = steps / epoch_steps
        tokens = round(epochs * sum(part.tokens for parts in batches for part in parts))
        seconds = tokens * self._config.num_hidden_layers * self._layer_seconds(recipe)
        if self._replies > 1:
            seconds *= 1 + FORWARD_SHARE
        has_plenty = self._machine.device == "cpu" and self.has_plenty(recipe, free)
        return Plan(self.memory(recipe), steps, tokens, seconds, most_tokens(recipe), free, has_plenty)

    def fit(self, recipe: Recipe, free: int | None) -> Recipe:
        """Return the recipe as it is trained.

        `training.batch_tokens: auto` has become a number, the largest that so many bytes let fit. Prefixes are not
        shared if a row is longer than the base's attention window.
        """
        if outgrows_window(self._config, max(map(len, self._rows.token_ids), default=0)):
            recipe = _changed(recipe, share_prefix=False)
        if recipe.training.batch_tokens != "auto":
            return recipe
        for tokens in AUTO_TOKENS:
            fitted = _changed(recipe, batch_tokens=tokens)
            if free is None or AUTO_MARGIN * self.memory(fitted).needed <= free:
                break
        return fitted

    def has_plenty(self, recipe: Recipe, free: int | None) -> bool:
        """Return whether a recipe leaves room for memory that is kept between passes (processor.py)."""
        return free is None or PLENTY * self.memory(recipe).needed <= free

    def shortage(self, recipe: Recipe, free: int | None) -> tuple[str, str]:
        """Return what is to be said if a CPU has too few free bytes for a recipe, and settings that need less.

        Returns:
            Message and hint; two "" if it fits, or if nobody knows. A GPU says itself that it is full.
        """
        needed = self.memory(recipe).needed
        if free is None or needed <= free or self._machine.device != "cpu":
            return "", ""
        return f"training needs about {size_text(needed)} more memory, and {size_text(free)} are free", self.hint(
            recipe
        )

    def _batches(self, recipe: Recipe) -> Iterator[list[Shape]]:
        """Yield the parts of each batch of the first epoch."""
        training, rows, most = recipe.training, self._rows, most_tokens(recipe)
        lengths = [len(ids) for ids in rows.token_ids]
        if training.packing:
            packs = math.ceil(sum(lengths) / training.max_tokens)
            whole = training.max_tokens * training.batch_rows
            part = max(min(whole, most), *lengths)
            for _ in range(math.ceil(packs / training.batch_rows)):
                yield [Shape(0, (part,), part)] * math.ceil(whole / part)
            return
        batch_rows = self._replies * training.batch_rows
        runs = runs_of(rows) if training.share_prefix else [[row] for row in range(len(lengths))]
        order = list(BatchOrder(runs, lengths, batch_rows, recipe.seed))
        for start in range(0, len(order), batch_rows):
            batch = order[start : start + batch_rows]
            shared = self._shared(batch) if training.share_prefix else 0
            parts = cut_rows([lengths[row] for row in batch], shared, most)
            yield [self._shape([batch[place] for place in part], recipe) for part in parts]

    def _shape(self, part: Sequence[int], recipe: Recipe) -> Shape:
        rows = self._rows
        return Shape(
            shared=self._shared(part) if recipe.training.share_prefix else 0,
            lengths=tuple(len(rows.token_ids[row]) for row in part),
            trained=sum(trained_count(rows.labels[row]) for row in part),
        )

    def _shared(self, batch: Sequence[int]) -> int:
        """Return how many leading tokens prefix_loss.py evaluates once."""
        first = self._rows.token_ids[batch[0]]
        prompt = min(prompt_length(self._rows.labels[row]) for row in batch)
        shared = min(prompt, *(common_length(first, self._rows.token_ids[row]) for row in batch)) - 1
        return shared if len(batch) > 1 and shared >= MIN_SHARED_TOKENS else 0

    def largest(self, recipe: Recipe) -> Shape:
        """Return the largest part of a batch, by the tokens that pass through the layers."""
        parts = (part for parts in self._batches(recipe) for part in parts)
        return max(parts, key=lambda part: (part.tokens, len(part.lengths), part.trained))

    def memory(self, recipe: Recipe) -> Memory:
        """Return the memory that the largest part of a recipe's batches needs. Raises UsageError as `plan`."""
        layers, part = self._config.num_hidden_layers, self.largest(recipe)
        one, two = (self._measure(recipe, count, part) for count in (1, 2))
        base, adapter, peak = (first + (layers - 1) * (second - first) for first, second in zip(one, two, strict=True))
        activations = layers * (two[2] - one[2])
        temporaries = peak - activations
        if recipe.quantization == "nf4":
            temporaries += self._config.hidden_size * self._config.intermediate_size * self._machine.dtype.itemsize
        if recipe.training.packing:
            temporaries += part.lengths[0] ** 2 * self._machine.dtype.itemsize  # the mask that keeps rows apart
        return Memory(
            base=base,
            adapter=adapter * (TRAINED_BYTES + OPTIMIZER_BYTES[recipe.training.optimizer]),
            activations=activations,
            temporaries=temporaries,
            libraries=resident_bytes() if self._machine.device == "cpu" else 0,
        )

    def _measure(self, recipe: Recipe, layers: int, part: Shape) -> tuple[int, int, int]:
        """Return of a model with so many layers the base's bytes, the adapter's weights, and the peak of a pass."""
        is_quantized, checkpointing = recipe.quantization == "nf4", recipe.training.gradient_checkpointing
        key = recipe.lora, is_quantized
        if key not in self._counters:
            self._counters[key] = StepCounter(self._config, self._machine.dtype, recipe.lora, is_quantized=is_quantized)
        counter = self._counters[key]
        model = counter.model(layers)
        linear = {
            f"{name}.weight"
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head")
        }
        base = sum(
            weight.numel() * (NF4_BYTES if is_quantized and name in linear else weight.itemsize)
            for name, weight in model.named_parameters()
            if not weight.requires_grad
        )
        place = (key, layers, part, checkpointing)
        if place not in self._peaks:
            self._peaks[place] = counter.peak(layers, part, checkpointing=checkpointing)
        return round(base), model.get_nb_trainable_parameters()[0], self._peaks[place]

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
        best, is_cast = math.inf, self._machine.dtype != torch.float32
        for _ in range(TIMED_PASSES):
            started_s = time.monotonic()
            with torch.autocast(self._machine.device, self._machine.dtype, enabled=is_cast):
                hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state
            hidden.float().sum().backward()
            float(hidden.detach()[0, 0, 0])  # a GPU's work is over when a number of it is read
            best = min(best, time.monotonic() - started_s)
        return best / TIMED_TOKENS

    def hint(self, recipe: Recipe) -> str:
        """Return the settings that save most memory, as the end of an error message."""
        saved = [f"{settings} saves about {size_text(count)}" for settings, count in self.savings(recipe)[:3]]
        return "; ".join(saved) or "free some memory, or train a smaller base"

    def savings(self, recipe: Recipe) -> list[tuple[str, int]]:
        """Return settings that would need less memory, with the bytes saved, most first."""
        lora, fewer = recipe.lora, self.largest(recipe).tokens // 2
        changes: dict[str, Recipe] = {
            "training.gradient_checkpointing=true training.share_prefix=false": _changed(
                recipe, gradient_checkpointing=True, share_prefix=False
            ),
            f"training.batch_tokens={fewer}": _changed(recipe, batch_tokens=fewer),
            "quantization=nf4": recipe.model_copy(update={"quantization": "nf4"}),
            "training.optimizer=paged_adamw_8bit": _changed(recipe, optimizer="paged_adamw_8bit"),
            f"lora.rank={lora.rank // 2}": recipe.model_copy(
                update={"lora": lora.model_copy(update={"rank": max(1, lora.rank // 2)})}
            ),
        }
        now = self.memory(recipe).needed
        saved = [(text, now - self.memory(changed).needed) for text, changed in changes.items()]
        return sorted(((text, count) for text, count in saved if count > 0), key=lambda item: -item[1])


def most_tokens(recipe: Recipe) -> int:
    """Return how many tokens may pass through the layers at once; an `auto` that nobody has fitted is the largest."""
    tokens = recipe.training.batch_tokens
    return AUTO_TOKENS[0] if tokens == "auto" else tokens


def _changed(recipe: Recipe, **training: Any) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=training)})


def size_text(count: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
