"""The one exception a person is meant to read: what happened, and what to do next."""


class UserError(Exception):
    """Something the user can fix. The CLI prints it without a traceback and exits with `code`.

    Attributes:
        hint: One sentence that says what to do next; empty if the message already does.
        code: Process exit code (see `autoresearch.cli`).
    """

    def __init__(self, message: str, hint: str = "", code: int = 2) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code
