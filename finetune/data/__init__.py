"""Training data: conversations generated on a site, or read from others' files, checked and reported.

In: a site, or files in common formats.
Out: rows, held-out cases, encoded rows, a data report.
May import: finetune/pages.py, devices, edge_agent.
"""
