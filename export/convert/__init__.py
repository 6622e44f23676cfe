"""From safetensors and a LoRA adapter to a GGUF file: our own converter.

In: a base folder, an adapter, a tokenizer.
Out: GGUF files and merged checkpoints.
May import: quantize and the files beside the rooms.
"""
