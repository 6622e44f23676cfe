"""The models that are graded: which they are, what each does with cases, and on which machines."""
