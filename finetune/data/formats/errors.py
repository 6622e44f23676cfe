"""What can be wrong with one conversation of a file: data, not the end of the run."""

from __future__ import annotations


class Unreadable(ValueError):
    """A row cannot be read as a conversation; the message says why."""


class Unwritable(ValueError):
    """A format has no place for something in a conversation; the message says what."""
