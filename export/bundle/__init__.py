"""Write a bundle: model, model card, manifest.

In: files and figures of an export.
Out: a bundle folder.
May import: convert and edge_agent.
"""
