"""trl's trainer, told what to do. This file and preference_trainer.py alone know trl; importing it imports torch.

What trl 1.16 would do by itself and must not: render or truncate rows (they come encoded), cast the adapter of a
quantized base to bfloat16 (the optimizer's small updates would be lost), switch bf16 and gradient checkpointing on
by default, and score every position's logits for metrics on a CPU.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer, pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from edge_agent.progress import ProgressBar
from finetune.data.encoded_rows import EncodedRows
from finetune.recipe import Recipe
from finetune.training.batch_order import BatchOrder, runs_of
from finetune.training.memory_plan import most_tokens
from finetune.training.metrics import HELD_OUT_LOSS, Metrics
from finetune.training.prefix_loss import exact_rows, has_plain_head, parts_of, summed_loss
from finetune.training.quantized_base import Machine, add_adapter, is_sharded, load_base
from finetune.training.run_folder import BEST, BOARD, METRICS, keep_checkpoint, part_of

SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def build_trainer(
    recipe: Recipe, machine: Machine, tokenizer: Any, rows: EncodedRows, held_out: EncodedRows, progress: ProgressBar
) -> AdapterTrainer:
    """Return a trainer ready to train: rows, frozen base, fresh adapter. `held_out` is measured on and not trained."""
    training = recipe.training
    dataset = Dataset.from_dict({"input_ids": list(rows.token_ids), "labels": list(rows.labels)})
    if training.packing:
        dataset = pack_dataset(dataset, training.max_tokens, strategy="bfd")
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    # Packed rows go without an attention mask: position ids alone keep them apart.
    collator = DataCollatorForLanguageModeling(pad_token_id=pad_id or 0, padding_free=training.packing)
    set_seed(recipe.seed)
    model = add_adapter(load_base(recipe, machine.device, machine.dtype), recipe.lora)
    trainer = AdapterTrainer(
        model=model,
        args=trainer_arguments(recipe, machine),
        train_dataset=dataset,
        processing_class=tokenizer,
        data_collator=collator,
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    runs = runs_of(rows) if training.share_prefix else [[row] for row in range(len(dataset))]
    trainer.take_rows(runs, held_out, DataCollatorForLanguageModeling(pad_token_id=pad_id or 0))
    trainer.set_up(recipe, progress)
    return trainer


def trainer_arguments(recipe: Recipe, machine: Machine) -> SFTConfig:
    """Return trl's settings for a recipe; everything that trl 1.16 switches on by itself is said here."""
    return SFTConfig(**common_arguments(recipe, machine), dataset_kwargs={"skip_prepare_dataset": True})


def common_arguments(recipe: Recipe, machine: Machine) -> dict[str, Any]:
    """Return the settings that every trainer of trl's takes."""
    training = recipe.training
    return dict(  # noqa: C408
        output_dir=str(part_of(Path(recipe.out)) / "checkpoints"),
        use_cpu=machine.device == "cpu",
        bf16=machine.dtype == torch.bfloat16,
        fp16=machine.dtype == torch.float16,
        per_device_train_batch_size=training.batch_rows,
        gradient_accumulation_steps=training.accumulate,
        num_train_epochs=training.epochs or 1.0,
        max_steps=training.steps or -1,
        learning_rate=training.learning_rate,
        lr_scheduler_type=SCHEDULES[training.schedule],
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_gradient_norm,
        optim=machine.optimizer,
        gradient_checkpointing=training.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if training.gradient_checkpointing else None,
        max_length=None,
        remove_unused_columns=False,
        dataloader_pin_memory=machine.device == "cuda",
        save_steps=training.checkpoint_every,
        logging_steps=1,
        disable_tqdm=True,
        report_to=[],
        seed=recipe.seed,
    )


def _of_batch(
    model: Any, batch: dict[str, Any], *, share_prefix: bool, measure: Callable[..., Tensor] = summed_loss
) -> Tensor:
    """Be the forward pass of a model while it trains: DDP and FSDP see what goes through `forward` only."""
    return measure(model.get_base_model(), batch, share_prefix=share_prefix)


class Record(TrainerCallback):
    """Shows steps, writes metrics, measures on held-out rows, keeps the best adapter, stops when nothing is gained."""

    def __init__(self, trainer: AdapterTrainer, progress: ProgressBar) -> None:
        self._trainer, self._progress, self._started_s = trainer, progress, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say how many steps there are."""
        self._started_s = time.monotonic()
        accelerator = self._trainer.accelerator
        part = part_of(Path(self._trainer.recipe.out))
        board = part / BOARD if self._trainer.recipe.training.tensorboard else None
        self._metrics = Metrics(part / METRICS, state.global_step, board)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            self._metrics.write()
        per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * accelerator.num_processes
        self._progress.note(f"{state.max_steps} steps of {per_step} rows, starting at step {state.global_step}")
        self._progress.start(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Show and write a step with its loss; speed counts the tokens of rows, not padding."""
        if logs and "loss" in logs:
            speed = self._trainer.all_seen_tokens / (time.monotonic() - self._started_s)
            step = f"step {state.global_step}/{state.max_steps}: loss {float(logs['loss']):.4f}, {speed:,.0f} tokens/s"
            self._progress.show(state.global_step, state.max_steps, step)
            numbers = {name: float(logs[name]) for name in ("loss", "grad_norm", "learning_rate") if name in logs}
            self._metrics.add(state.global_step, **numbers, tokens_per_s=speed, memory_mib=used_memory_mib())

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close what is open."""
        self._metrics.close()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure, at the last step too."""
        training = self._trainer.recipe.training
        is_due = state.global_step % training.held_out_every == 0 or state.global_step == state.max_steps
        if not training.held_out_rows or not is_due:
            return
        before = [loss for _, loss in self._metrics.series(HELD_OUT_LOSS)]
        loss = self._trainer.mean_loss(self._trainer.held_out)
        self._metrics.add(state.global_step, **{HELD_OUT_LOSS: loss})
        self._progress.note(f"step {state.global_step}: held-out loss {loss:.4f}")
        if not before or loss < min(before):
            self._trainer.save_adapter(part_of(Path(self._trainer.recipe.out)) / BEST)
        elif training.patience and len(before) - before.index(min(before)) >= training.patience:
            self._progress.note(f"the held-out loss has not fallen for {training.patience} measurements: done")
            control.should_training_stop = True


def used_memory_mib() -> float:
    """Return the most memory that was in use so far: the GPU's, or this process's resident memory."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def whole(weight: Tensor) -> Tensor:
    """Return a weight of which processes may hold a part each (FSDP); then all of them must ask."""
    return weight.detach().full_tensor() if isinstance(weight, DTensor) else weight.detach()


class RunTrainer:
    """What our trainers add to trl's: steps are shown and written, checkpoints are whole or absent."""

    def set_up(self: Any, recipe: Recipe, progress: ProgressBar) -> None:
        """Take what trl's constructor does not."""
        self.recipe, self.seen_tokens = recipe, 0
        self.remove_callback(PrinterCallback)
        self.add_callback(Record(self, progress))

    @property
    def all_seen_tokens(self: Any) -> int:
        """Tokens of the rows seen, without padding; other processes are taken to have seen as many as this one."""
        return int(self.seen_tokens * self.accelerator.num_processes)

    def save_adapter(self: Any, folder: Path) -> None:
        """Write the adapter as it is now; one process does, all take part."""
        weights = {name: whole(weight) for name, weight in self.model.named_parameters() if weight.requires_grad}
        if not self.accelerator.is_main_process:
            return
        options = {"save_embedding_layers": False, "selected_adapters": ["default"]}
        self.model.save_pretrained(folder, state_dict=weights, **options)
        (folder / "README.md").unlink(missing_ok=True)

    def save_model(self: Any, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter into a checkpoint, and nothing of the frozen base."""
        self.save_adapter(Path(output_dir or self.args.output_dir))

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: run.json says what made the adapter."""

    def training_step(self: Any, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Add the gradients of a batch, part after part, and return its loss; processes add up theirs after the last.

        With FSDP a batch is one part: all processes must pass through the layers as often.
        """
        *before, last = self._parts(inputs)
        losses = []
        for part in before:
            with self.accelerator.no_sync(model):
                losses.append(super().training_step(model, part, num_items_in_batch))  # type: ignore[misc]
        return sum(losses) + super().training_step(model, last, num_items_in_batch)  # type: ignore[misc]

    def _get_output_dir(self: Any, trial: Any) -> str:
        return str(Path(self.args.output_dir) / "saving")

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        self.accelerator.wait_for_everyone()  # each writes its random state
        if not self.accelerator.is_main_process:
            return
        saved = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        keep_checkpoint(saved, Path(self.args.output_dir), self.recipe.training.keep_checkpoints)


class AdapterTrainer(RunTrainer, SFTTrainer):
    """trl's trainer with our loss and our order of rows."""

    def take_rows(self, runs: list[list[int]], held_out: EncodedRows, pad: Any) -> None:
        """Take the order of rows, those to measure on, and what makes a batch of rows."""
        self.runs, self.held_out, self.pad = runs, held_out, pad
        self.has_plain_head = has_plain_head(self.model.get_base_model().config)
        if self.has_plain_head:
            self.model.forward = MethodType(_of_batch, self.model)

    def load_adapter(self, folder: Path) -> None:
        """Take an adapter's weights from a folder; of a weight that processes hold a part of each, its part."""
        weights = load_file(folder / "adapter_model.safetensors")
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                saved = name.replace(".default", "")  # of a DoRA magnitude peft leaves out the last part too
                weight = weights.get(saved, weights.get(saved.removesuffix(".weight"))).to(parameter.device)
                if isinstance(parameter, DTensor):
                    weight = distribute_tensor(weight, parameter.device_mesh, parameter.placements)
                parameter.data.copy_(weight)

    def mean_loss(self, rows: EncodedRows) -> float:
        """Return the mean loss of the rows' trained tokens."""
        return sum(loss.item() for loss in self._measure(rows, summed_loss)) / rows.trained_tokens

    def count_exact(self, rows: EncodedRows) -> int:
        """Return of how many rows greedy decoding would say every trained token."""
        return sum(int(is_exact.sum()) for is_exact in self._measure(rows, exact_rows))

    def _measure(self, rows: EncodedRows, of_batch: Callable[..., Tensor]) -> list[Tensor]:
        """Return what a function of the model gives for each batch of rows.

        The model is in training mode, without dropout: in eval mode bitsandbytes 0.50 packs a CPU's weights for
        another kernel, rounds their scales, and does not get back to what they were.
        """
        self.model.train()
        dropouts = [module for module in self.model.modules() if isinstance(module, torch.nn.Dropout)]
        for dropout in dropouts:
            dropout.eval()
        plain = [{"input_ids": ids, "labels": labels} for ids, labels in zip(rows.token_ids, rows.labels, strict=True)]
        share, size = self.recipe.training.share_prefix, self.args.train_batch_size
        found = []
        eager = torch.compiler.set_stance("force_eager")  # compiled anew for this, it would take longer than it saves
        with torch.no_grad(), self.accelerator.autocast(), eager:
            for start in range(0, len(plain), size):
                batch = self._prepare_inputs(self.pad(plain[start : start + size]))
                for part in self._parts(batch):
                    if self.has_plain_head:
                        found.append(self.model(part, share_prefix=share, measure=of_batch))
                    else:
                        found.append(of_batch(self.model.get_base_model(), part, share_prefix=share))
        for dropout in dropouts:
            dropout.train()
        return found

    def _parts(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        if is_sharded():
            return [batch]
        return parts_of(batch, most_tokens(self.recipe), share_prefix=self.recipe.training.share_prefix)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss of the trained tokens, and compute no other logits."""
        mask = inputs.get("attention_mask")
        self.seen_tokens += int(inputs["input_ids"].numel() if mask is None else mask.sum())
        if not self.has_plain_head:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        with self.accelerator.autocast():  # through the wrapper that adds up gradients, where there is one
            loss = model(inputs, share_prefix=self.recipe.training.share_prefix)
        assert num_items_in_batch is not None, "a part of a batch cannot know how many tokens the step trains"
        return loss * self.accelerator.num_processes / num_items_in_batch  # of all processes; gradients are averaged

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        return BatchOrder(self.runs, lengths, self.args.train_batch_size, self.recipe.seed)
