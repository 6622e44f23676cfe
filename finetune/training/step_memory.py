"""What one forward and backward pass holds at its peak, counted without computing it.

The real code runs on tensors that have shapes and no contents (torch's FakeTensorMode, always as on a CPU), and every
storage is counted from when it is made until it is freed: activations, the logits of a chunk, gradients on their way.

Does not guard against: what a kernel takes for itself, memory that an allocator cannot give out again.
"""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from finetune.recipe import Lora
from finetune.training.cpu_attention import CPU_ATTENTION
from finetune.training.prefix_loss import chunked_loss, hidden_states, passed_tokens
from finetune.training.prefix_tree import branch_states
from finetune.training.quantized_base import add_adapter, empty_base


@dataclass(frozen=True)
class Shape:
    """Of a part of a batch: `lengths` of its rows in tokens; all share the first `shared`, or are padded alike."""

    shared: int
    lengths: tuple[int, ...]
    trained: int

    @property
    def tokens(self) -> int:
        """Tokens that pass through the layers."""
        return passed_tokens(self.shared, self.lengths)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operations make while it is entered; `peak` is the most at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made."""
        for given in tree_iter((args, kwargs)):
            if isinstance(given, torch.Tensor):
                self._know(given, is_new=False)
        result = func(*args, **(kwargs or {}))
        for made in tree_iter(result):
            if isinstance(made, torch.Tensor):
                self._know(made, is_new=True)
        self.peak = max(self.peak, self.now)
        return result

    def _know(self, tensor: torch.Tensor, *, is_new: bool) -> None:
        storage = tensor.untyped_storage()
        if (place := storage._cdata) in self._known:
            return
        size = storage.nbytes() if is_new else 0

        def forget(_: Any) -> None:
            self.now -= size
            self._known.pop(place, None)

        self._known[place] = weakref.ref(storage, forget)
        self.now += size


class StepCounter:
    """Counts the memory of passes through one base with one adapter, by the number of layers."""

    def __init__(self, config: Any, dtype: Any, lora: Lora, *, is_quantized: bool) -> None:
        """Args: dtype: torch's, of the passes; is_quantized: whether the base is in NF4."""
        self._config, self._dtype, self._lora, self._is_quantized = config, dtype, lora, is_quantized
        self._mode = FakeTensorMode()
        self._models: dict[int, Any] = {}

    def model(self, layers: int) -> Any:
        """Return a model of so many layers, without contents."""
        if layers not in self._models:
            config = with_layers(self._config, layers)
            config._attn_implementation = CPU_ATTENTION
            with torch.device("meta"):
                model = add_adapter(empty_base(config, self._dtype), self._lora)
            self._make_fake(model)
            self._models[layers] = model
        return self._models[layers]

    def _make_fake(self, model: Any) -> None:
        """Give a model on the meta device weights as on a CPU, without contents; what is trained is float32."""
        made: dict[int, Any] = {}
        for module in model.modules():
            for name, weight in module._parameters.items():
                if weight is not None and id(weight) not in made:
                    dtype = torch.float32 if weight.requires_grad or weight.ndim == 1 else weight.dtype
                    with self._mode:
                        fake = torch.empty(weight.shape, dtype=dtype)
                    made[id(weight)] = weight, torch.nn.Parameter(fake, requires_grad=weight.requires_grad)
                if weight is not None:
                    module._parameters[name] = made[id(weight)][1]
            for name, buffer in module._buffers.items():
                with self._mode:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
            if self._is_quantized and hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = False  # peft's layer over 4 bits leaves that to autocast

    def peak(self, layers: int, shape: Shape, *, checkpointing: bool) -> int:
        """Return the most bytes at once in a forward and backward pass of a part, weights not counted."""
        model = self.model(layers).train()
        causal = model.get_base_model()
        causal.activation_checkpointing_disable()
        if checkpointing:
            causal.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
            causal.enable_input_require_grads()
        with self._mode, LiveBytes() as live:
            with torch.autocast("cpu", self._dtype, enabled=self._dtype != torch.float32):
                hidden = self._hidden(causal, shape)
                trained = torch.zeros(shape.trained, dtype=torch.long)
                loss = chunked_loss(causal.get_output_embeddings(), hidden[trained], trained)
                del hidden
            loss.backward()
            for weight in model.parameters():
                weight.grad = None
        return live.peak

    @staticmethod
    def _hidden(causal: Any, shape: Shape) -> torch.Tensor:
        if shape.shared:
            branches = [torch.zeros(length - shape.shared, dtype=torch.long) for length in shape.lengths]
            return branch_states(causal, torch.zeros(shape.shared, dtype=torch.long), branches)
        ids = torch.zeros(len(shape.lengths), max(shape.lengths), dtype=torch.long)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if len(ids) == 1:
            del batch["attention_mask"]  # of ones only, which transformers drops where it can look
        return hidden_states(causal, batch, 0).flatten(0, 1)


def with_layers(config: Any, layers: int) -> Any:
    """Return a configuration with another number of layers."""
    changed = copy.deepcopy(config)
    changed.num_hidden_layers = layers
    if getattr(changed, "layer_types", None):  # Qwen and others say of each layer what kind it is
        changed.layer_types = changed.layer_types[:layers]
    return changed
