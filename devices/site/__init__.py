"""A site: which devices there are, what they can do, what guards them, and the tools that a model gets.

In: a site file (YAML) and models.yaml; phrasings.yaml only for training data and renamed tools.
Out: `Site`, `Device`, `Action`, tools, and states in words.
May import: devices/errors.py and yaml_file.py. No driver, no broker.
"""
