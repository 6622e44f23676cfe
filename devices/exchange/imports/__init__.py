"""Site files from what others know of devices, a file by source.

In: JSON of others. Out: an `Imported`: devices and drivers, with a verdict on every feature that was there.
"""
