"""The Hugging Face engine: what was trained, before any conversion.

In: a base, an adapter, prompts.
Out: completions.
May import: finetune/recipe.py, training, devices, edge_agent.
"""
