"""The frozen base model, in NF4 or 16/32 bits, and the LoRA adapter on it. The only file that knows bitsandbytes.

One code path serves CPU and GPU: what differs (device, compute dtype, paged memory) is asked of the machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import UnavailableError, UsageError
from finetune.recipe import STARTER, Lora, Recipe


@dataclass(frozen=True)
class Machine:
    """What a run computes on; `dtype` is torch's."""

    device: str
    dtype: Any
    optimizer: str

    @property
    def dtype_name(self) -> str:
        """The dtype without torch's prefix, such as float32."""
        return str(self.dtype).removeprefix("torch.")


def choose_device(wanted: str) -> str:
    """Return "cuda" or "cpu" for auto, cuda or cpu.

    Raises:
        UsageError: cuda is wanted and absent, or several GPUs are visible to one process.
    """
    import torch

    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise UsageError("device is cuda, and torch sees no GPU", hint="set device=auto, or install a CUDA torch")
    if wanted == "cpu" or not has_cuda:
        return "cpu"
    if torch.cuda.device_count() > 1 and "LOCAL_RANK" not in os.environ:
        raise UsageError(
            f"{torch.cuda.device_count()} GPUs are visible, and one process uses one",
            hint="accelerate launch --num_processes N -m edgewright train … for all, or set CUDA_VISIBLE_DEVICES=0",
        )
    return "cuda"


def choose_dtype(wanted: str, device: str) -> Any:
    """Return the torch dtype to compute in; `auto` takes the fastest that the machine has units for.

    bfloat16 without bf16 units is emulated: 20 times slower than float32 in NF4 layers (measured, AVX2).
    """
    import torch

    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    from bitsandbytes.functional import has_avx512bf16

    return torch.bfloat16 if has_avx512bf16() else torch.float32


def choose_optimizer(wanted: str, device: str) -> tuple[str, str]:
    """Return the name transformers knows, and why it is not the one wanted ("" if it is).

    Where processes hold parts of each weight (FSDP), it is torch's AdamW: bitsandbytes 0.50 cannot update parts. On a
    CPU it runs the 8-bit AdamW too; only pages (CUDA unified memory) do not exist there.
    """
    names = {"adamw": "adamw_torch", "adamw_8bit": "adamw_bnb_8bit", "paged_adamw_8bit": "paged_adamw_8bit"}
    if is_sharded() and wanted != "adamw":
        return names["adamw"], "with FSDP: bitsandbytes cannot update a part of a weight"
    if device == "cpu" and wanted == "paged_adamw_8bit":
        return names["adamw_8bit"], "a CPU has no paged memory: the same 8-bit AdamW without paging"
    return names[wanted], ""


def is_sharded() -> bool:
    """Return whether `accelerate launch --use_fsdp` started this process: each then holds a part of the weights."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def load_tokenizer(recipe: Recipe) -> Any:
    """Return the base's Hugging Face tokenizer.

    Raises:
        UsageError, UnavailableError: as `load_base`.
    """
    return tokenizer_of(_require_base(recipe))


def tokenizer_of(name: str) -> Any:
    """Return the tokenizer of a model's folder or hub name. Raises UsageError or UnavailableError, as `load_base`."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise _not_loaded(name, error) from error


def load_base(recipe: Recipe, device: str, dtype: Any) -> Any:
    """Return the frozen base model on `device`, quantized as the recipe says.

    Linear layers hold NF4 with double quantization and compute in `dtype`; embeddings and head stay in `dtype`,
    norms in float32. The head is never quantized.

    Raises:
        UsageError: the folder is missing or holds no model.
        UnavailableError: the hub cannot be reached.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils.logging import disable_progress_bar

    from finetune.training.cpu_attention import CPU_ATTENTION

    name = _require_base(recipe)
    if Path(name).is_dir():
        disable_progress_bar()
    # Of several processes each has its own GPU; with FSDP a part of each weight goes there once the parts are made.
    place = torch.cuda.current_device() if device == "cuda" and not is_sharded() else "cpu"
    quantization = None
    if recipe.quantization == "nf4":  # transformers' default type is fp4
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=dtype if is_sharded() else torch.uint8,  # parts are made of floating weights only
        )
    attention = CPU_ATTENTION if device == "cpu" else "sdpa"
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, device_map={"": place}, quantization_config=quantization, attn_implementation=attention
        )
    except (OSError, ValueError) as error:
        raise _not_loaded(name, error) from error
    # The parts of peft's prepare_model_for_kbit_training that are needed: it would also upcast the embeddings and
    # the head to float32, which costs gigabytes on a vocabulary of 128,000 and changes nothing under autocast.
    for parameter in model.parameters():
        parameter.requires_grad = False
        if parameter.ndim == 1 and parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32)
    return model


def load_config(recipe: Recipe) -> Any:
    """Return the base's transformers configuration. Raises UsageError or UnavailableError, as `load_base`."""
    from transformers import AutoConfig

    name = _require_base(recipe)
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise _not_loaded(name, error) from error


def empty_base(config: Any, dtype: Any) -> Any:
    """Return a frozen model of a configuration's shape; its weights are whatever torch's default device makes."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(config, dtype=dtype).requires_grad_(False)


def add_adapter(model: Any, lora: Lora) -> Any:
    """Return the model with a fresh LoRA adapter, whose weights are float32 and the only ones trained.

    Raises:
        UsageError: a target names no linear layer of the model.
    """
    from peft import LoraConfig, get_peft_model
    from torch.nn import Linear

    linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, Linear)}
    if unknown := [target for target in lora.targets if target not in linear]:
        raise UsageError(
            f"lora.targets: the base has no linear layer {unknown[0]!r}",
            hint=f"it has {', '.join(sorted(linear - {'lm_head'}))}",
        )
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def count_parameters(model: Any) -> tuple[int, int]:
    """Return how many parameters are trained, and how many there are (a packed 4-bit byte holds two)."""
    trained, total = model.get_nb_trainable_parameters()
    return int(trained), int(total)


def _require_base(recipe: Recipe) -> str:
    name = recipe.base_path_or_name
    looks_local = recipe.base == STARTER or name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_local and not (Path(name) / "config.json").is_file():
        hint = (
            "the starter is not in this installation: pretrain it, or set base=FOLDER" if recipe.base == STARTER else ""
        )
        raise UsageError(f"base {recipe.base}: no model in {name} (config.json is missing)", hint=hint)
    return name


def _not_loaded(name: str, error: Exception) -> UsageError | UnavailableError:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(name).is_dir():
        return UsageError(f"cannot load the base {name}: {first_line}")
    return UnavailableError(
        f"cannot fetch the base {name}: {first_line}", hint="check the name, the network and access"
    )
