"""Exceptions that cross rooms."""


class UserError(Exception):
    """An error that the user can fix: says what happened, and what to do next.

    The CLI prints it without a traceback and exits with `code`.

    Attributes:
        hint: One sentence that says what to do next; empty if the message already does.
        code: Process exit code (see `autoresearch.cli`).
    """

    def __init__(self, message: str, hint: str = "", code: int = 2) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


class Refused(Exception):
    """A proposal that cannot become an experiment; the message says why, for its author to mend it."""
