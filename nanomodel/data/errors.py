"""The exception of this package."""


class DataError(Exception):
    """An error in the data that a person can fix.

    Attributes:
        message: What happened, and where.
        hint: What to do next; empty if the message already says it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
