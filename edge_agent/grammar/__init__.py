"""Constrained decoding: which tokens may come next so that every call fits its tool's schema.

In: tools, and the tokens so far.
Out: a grammar for llguidance, and token masks.
May import: wire and devices/site.
"""
