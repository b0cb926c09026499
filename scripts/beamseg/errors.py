"""The one exception that a user is meant to read."""

from __future__ import annotations

from pathlib import Path


class InputError(Exception):
    """Input that the user gave and can mend: where it is, what was found, what is wanted, what to do.

    Parameters
    ----------
    where : str or Path
        The file, or the key of the configuration.
    found, expected, remedy : str
        One sentence each.
    """

    def __init__(self, where: str | Path, found: str, expected: str, remedy: str) -> None:
        self.where, self.found, self.expected, self.remedy = str(where), found, expected, remedy
        super().__init__(f"{where}\n  found:    {found}\n  expected: {expected}\n  remedy:   {remedy}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str, str]]:
        return type(self), (self.where, self.found, self.expected, self.remedy)
