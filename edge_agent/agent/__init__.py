"""The agent loop and the session around it: ask the model, let the broker act, answer.

In: a bundle or an engine, a site, requests.
Out: answers, and what was done.
May import: engine, grammar, wire, devices, edge_agent/bundle.py.
"""
