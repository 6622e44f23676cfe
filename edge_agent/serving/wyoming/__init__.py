"""The Wyoming door, for voice pipelines."""
