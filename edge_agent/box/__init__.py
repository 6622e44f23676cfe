"""The box itself: whether the agent will run on this machine, with these devices.

In: a box's root or a bundle, a site, what the machine says of itself.
Out: findings, each with the fix to do.
May import: everything else of this package but cli.
"""
