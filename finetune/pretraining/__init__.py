"""Pretraining of the starter base model.

In: random sites.
Out: a small base model with its model card.
May import: training and data.
"""
