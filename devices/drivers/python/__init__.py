"""Functions of a Python file: the driver, and what runs them in a process of their own."""
