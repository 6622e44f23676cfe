"""The Hugging Face engine: what was trained, before any conversion.

In: a base, an adapter, prompts.
Out: completions.
May import: training and edge_agent.
"""
