"""The exception for a user's mistakes: where it is, what was found, what to do."""


class DipgoError(Exception):
    """An error of the user's, reported in one line; commands turn it into exit code 2.

    Args:
        where: The place of the error: a file and the path in it, an option, a block.
        found: What stands there.
        expected: What should stand there.
        remedy: What the user can do about it.
    """

    def __init__(self, where: str, *, found: str, expected: str, remedy: str) -> None:
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy
        line = f"{where}: found {found}; expected {expected}; {remedy}"
        super().__init__(" ".join(line.split()))
