"""Simulated devices: a world whose values drift and flow, and what a peer behind a real protocol needs.

In: a site, a speed, and faults made on purpose.
Out: a `World`, which is a driver; and peers that answer for it.
May import: site and devices/driver.py.
"""
