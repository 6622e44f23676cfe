"""Which type each tensor gets, the importance matrix, and what fits which box.

In: shapes, sample conversations, a target's name.
Out: plans of tensor types, an importance matrix.
May import: trained, the files beside the rooms, devices, edge_agent.
"""
