"""What `edgewright serve` runs: one broker and one engine behind several doors.

The hub (hub.py) has what all doors share; a door turns a protocol into calls of its sessions (session.py). Nothing here
decides what may move: that is the broker's.
"""
