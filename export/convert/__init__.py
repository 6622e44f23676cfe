"""From safetensors and a LoRA adapter to a GGUF file: our own converter.

In: a base folder, an adapter, a tokenizer.
Out: GGUF files and merged checkpoints.
May import: trained, quantize, the files beside the rooms, devices, edge_agent.
"""
