"""Put a bundle on a box, so that it comes up with a working model whatever happens meanwhile.

In: a bundle, a box's folder.
Out: the box's folder with `current` and `previous`.
May import: edge_agent.
"""
