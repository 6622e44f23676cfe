"""The broker: decides whether a command runs, carries it out, reads back, and ends what is timed.

In: commands of a model, a person or a rule; a site; a driver.
Out: verdicts, journal entries, and the writes that were allowed.
May import: site, simulation, drivers/registry.py and devices/driver.py.
"""
