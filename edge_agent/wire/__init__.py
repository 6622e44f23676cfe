"""The wire format: a conversation as text for the model, and the model's reply as a decision.

In: a site, messages, a chat template.
Out: prompt text, and parsed replies.
May import: devices/site.
"""
