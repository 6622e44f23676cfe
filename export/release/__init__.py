"""Signed releases: keys, a repository of bundles as static files, and the box that pulls from it.

In: bundles. Out: a folder that any web server, or a USB stick, can hold; on a box, a bundle that was flashed. A box
trusts one root of keys (The Update Framework), and takes nothing that is not signed by it, is older than what it has
seen, or has expired. May import what export may; tuf and securesystemslib are imported here alone, and what a box needs
of it (trust, pull, answers, sources, layout) needs no key.
"""
