"""Suites of others, read from local copies of public projects: where their files are, and how they are judged."""
