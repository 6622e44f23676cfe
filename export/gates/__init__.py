"""The gates between training and the box: parity, tasks, endings, smoke cases.

In: GGUF files and the trained model.
Out: figures, or a GateError.
May import: trained, edge_agent, and the files beside the rooms.
"""
