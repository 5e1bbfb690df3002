"""The exception of this package."""


class DataError(Exception):
    """An error in the data that a person can fix.

    Attributes:
        message: What happened, and where.
        hint: What to do next; empty if the message already says it.
        machine: Whether this machine or its connection is the reason, and the same may work later.
    """

    def __init__(self, message: str, hint: str = "", *, machine: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.machine = machine
