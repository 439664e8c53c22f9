"""What a command cannot do."""

from __future__ import annotations


class CliError(Exception):
    """A command ends without having done what it was asked to; the text says why, and what to do."""
