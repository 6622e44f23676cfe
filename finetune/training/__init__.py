"""A training run: plan, QLoRA or DPO through trl, losses, run folder.

In: a recipe, encoded rows, a base model.
Out: a run folder with the adapter.
May import: data and the files beside the rooms.
"""
