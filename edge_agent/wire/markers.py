"""The wire format's markers, and what stands between a thought's steps. Imports nothing: the engine starts with it."""

THINK, END_THINK, CALL, END_CALL = "<think>", "</think>", "<tool_call>", "</tool_call>"
MARKERS = (THINK, END_THINK, CALL, END_CALL)
THEN = "; then "  # in a thought, between calls of which one waits for the other
