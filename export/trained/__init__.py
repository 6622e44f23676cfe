"""What training left behind, as the export reads it and as Hugging Face computes it.

In: a run folder.
Out: the run's facts, sample conversations, reference probabilities.
May import: the files beside the rooms, devices, edge_agent.
"""
