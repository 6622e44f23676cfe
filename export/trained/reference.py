"""The model that was trained, as Hugging Face and peft have it: what every file is held against.

Base in float32 with the adapter live, not merged. It also says how large each weight matrix's inputs are on the sample
conversations: the importance matrix.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.architectures import Shape, tensor_names
from export.trained.nf4 import base_weight
from export.trained.samples import Scored

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray
    from torch import Tensor

    LogProbs = list[NDArray[float32]]  # for each text float32 (position, vocabulary)


class Reference:
    """The model in float32, on a GPU if there is one."""

    def __init__(self, base: Path, adapter: Path | None, nf4_dtype: str = "") -> None:
        """Load a base's folder and an adapter's; `nf4_dtype` as `convert`."""
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self._device = best_device()
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        for name, weight in model.named_parameters():
            weight.data = base_weight(name, weight.data, nf4_dtype)
        self._modules = dict(model.named_modules())  # peft keeps each linear layer inside of its own
        if adapter:
            from peft import PeftModel

            with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 by a name that it has deprecated
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
                model = PeftModel.from_pretrained(model, adapter)
        self._model = model.to(self._device).eval()

    def log_probs(self, rows: Sequence[Scored]) -> LogProbs:
        """Return the log-probabilities of the next token, for each row float32 (scored position, vocabulary)."""
        import torch

        scores = []
        with torch.inference_mode():
            for row in rows:
                keep = torch.tensor(row.positions, device=self._device)
                ids = torch.tensor([row.token_ids], device=self._device)
                logits = self._model(input_ids=ids, logits_to_keep=keep).logits[0]
                scores.append(torch.log_softmax(logits.float(), dim=-1).cpu().numpy())
        return scores

    def importance(
        self, shape: Shape, rows: Sequence[Sequence[int]], shared: int
    ) -> tuple[dict[str, NDArray[float32]], int]:
        """Return the sum of squares of each input of the layers' weight matrices, and of how many tokens it is.

        Args:
            shape: of the model.
            rows: token ids of texts.
            shared: how many first tokens all rows have alike; they count once.

        Returns:
            float32 (in,) by GGUF name; tokens.
        """
        import torch

        sums: dict[str, Tensor] = {}
        skipped = 0  # leading tokens that do not count now

        def measure(name: str) -> Any:
            def add(_: Any, given: tuple[Tensor, ...]) -> None:
                inputs = given[0][0, skipped:].float()
                sums[name] = sums.get(name, 0) + inputs.square().sum(dim=0).double()

            return add

        names = {
            source: name for source, name in tensor_names(shape).items()
            if name.startswith("blk.") and len(shape.tensor_shape(source)) == 2
        }  # fmt: skip
        hooks = [
            self._modules[source.removesuffix(".weight")].register_forward_pre_hook(measure(name))
            for source, name in names.items()
        ]
        count = 0
        try:
            with torch.inference_mode():
                for number, row in enumerate(rows):
                    skipped = shared if number else 0
                    count += len(row) - skipped
                    self._model(input_ids=torch.tensor([list(row)], device=self._device), logits_to_keep=1)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: total.float().cpu().numpy() for name, total in sums.items()}, count


def best_device() -> str:
    """Return cuda if there is a GPU, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
