"""Exchanges in people's words, of the corpus in finetune/asks.

In: a scene (a site in a state) and the corpus. Out: plans, as the other makers in finetune/data make them. What only
people do is here: hints, relative wishes, taking back, conditions, wishes for later, questions about many, follow-ups.
May import what finetune/data may.
"""
