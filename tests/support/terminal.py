"""A small terminal emulator: what a person sees of what a program writes to a pseudo-terminal."""

import re

SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Screen:
    """The visible lines; knows the sequences that Rich writes."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.rows = [""]
        self.row = self.column = 0

    def resize(self, width: int, height: int) -> None:
        """As most terminals do: a line that no longer fits goes on in the next one."""
        self.width, self.height = width, height
        folded: list[str] = []
        for index, line in enumerate(self.rows):
            text = line.rstrip()
            pieces = [text[at : at + width] for at in range(0, len(text), width)] or [""]
            folded += pieces
            if index == self.row:
                at = len(folded) - 1
        self.rows, self.row, self.column = folded, at, min(self.column, width - 1)
        self._scroll()

    def feed(self, text: str) -> None:
        """Show what a program writes."""
        place = 0
        while place < len(text):
            if found := SEQUENCE.match(text, place):
                self._control(found[1], found[2])
                place = found.end()
                continue
            self._put(text[place])
            place += 1

    @property
    def lines(self) -> list[str]:
        """What is seen."""
        return [line.rstrip() for line in self.rows]

    def _put(self, sign: str) -> None:
        if sign == "\r":
            self.column = 0
        elif sign == "\n":
            self._down()
        elif sign >= " ":
            if self.column >= self.width:
                self.column = 0
                self._down()
            line = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = line[: self.column] + sign + line[self.column + 1 :]
            self.column += 1

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")
        self._scroll()

    def _scroll(self) -> None:
        gone = max(0, len(self.rows) - self.height)
        self.rows, self.row = self.rows[gone:], max(0, self.row - gone)

    def _control(self, values: str, kind: str) -> None:
        number = int(values) if values.isdigit() else 0
        if kind == "A":
            self.row = max(0, self.row - (number or 1))
        elif kind == "K":
            self.rows[self.row] = "" if number == 2 else self.rows[self.row][: self.column]
        elif kind == "J" and number == 2:
            self.rows = [""] * max(len(self.rows), self.row + 1)
        elif kind == "H":
            self.row = self.column = 0
