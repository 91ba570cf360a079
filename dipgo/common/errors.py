"""The one exception a user sees: where, what was found, what was expected, what to do."""


class DipgoError(Exception):
    """A user's error, told in one line; commands turn it into exit code 2."""

    def __init__(self, where: str, *, found: str, expected: str, remedy: str) -> None:
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy
        line = f"{where}: found {found}; expected {expected}; {remedy}"
        super().__init__(" ".join(line.split()))
