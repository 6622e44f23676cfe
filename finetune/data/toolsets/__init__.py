"""Own conversations with a toolset: read, checked and split into trained and held-out ones; and drafts of toolsets.

In: conversations of any format, a toolset (`Site` with functions). Out: rows as the model sees them.
"""
