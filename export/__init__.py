"""What turns a fine-tune into a file for a box: merge, GGUF, quantize, parity, bundle, flash."""
