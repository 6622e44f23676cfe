"""Which type each tensor gets, its quantized blocks, the importance matrix, and what fits which box.

In: shapes, weights, sample conversations, a target's name.
Out: plans of tensor types, blocks, an importance matrix.
May import: trained, the files beside the rooms, devices, edge_agent.
"""
