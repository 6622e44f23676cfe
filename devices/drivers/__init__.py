"""Drivers over real protocols, a folder for each with the simulated peer that answers it in tests and by hand.

In: bindings of a site's devices to addresses.
Out: readings and writes over the protocol.
May import: site, simulation, devices/driver.py.
"""
