"""The experiments of a search in memory, in each order that somebody asks for, kept up to date one by one.

Taking one changed experiment costs the same whether ten or ten thousand are known: nothing here is computed
again from all of them. Others that keep running values of their own ask for what has changed since they last
looked (`changes`). Not covered: reading experiments from the file (`reader`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Generic, TypeVar

from autoresearch.types import Experiment, State

Item = TypeVar("Item")


class _Ordered(Generic[Item]):
    """Values in the order of their keys; one that comes last is simply appended."""

    def __init__(self) -> None:
        self._keys: list[int] = []
        self._items: list[Item] = []
        self._all: tuple[Item, ...] | None = ()

    def put(self, key: int, item: Item) -> None:
        """Add or replace a value."""
        self._all = None
        if not self._keys or key > self._keys[-1]:
            self._keys.append(key)
            self._items.append(item)
            return
        at = bisect_left(self._keys, key)
        if self._keys[at] == key:
            self._items[at] = item
        else:
            self._keys.insert(at, key)
            self._items.insert(at, item)

    def remove(self, key: int) -> None:
        """Remove a value, if it is there."""
        at = bisect_left(self._keys, key)
        if at < len(self._keys) and self._keys[at] == key:
            self._all = None
            del self._keys[at], self._items[at]

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, at: int) -> Item:
        return self._items[at]

    @property
    def all(self) -> tuple[Item, ...]:
        """All values; the same object until one changes."""
        if self._all is None:
            self._all = tuple(self._items)
        return self._all


class History:
    """Every experiment of one search.

    Attributes:
        by_number: All, in the order of their numbers, without a gap.
        decided: The baseline, and all with a verdict, in the order of the verdicts.
        kept: The recorded ones that were kept, in the order of the verdicts.
        open: All but the baseline that are not recorded, in the order of their numbers.
    """

    def __init__(self) -> None:
        self.by_number: _Ordered[Experiment] = _Ordered()
        self.decided: _Ordered[Experiment] = _Ordered()
        self.kept: _Ordered[Experiment] = _Ordered()
        self.open: _Ordered[Experiment] = _Ordered()
        self._changed: list[int] = []

    def put(self, experiment: Experiment) -> None:
        """Take an experiment that is new or has changed."""
        number, recorded = experiment.number, experiment.state is State.RECORDED
        self.by_number.put(number, experiment)
        self._changed.append(number)
        if number == 0 or experiment.verdict is not None:
            # A first verdict has no place in the order before: it never loses that again.
            self.decided.put(experiment.order, experiment)
        if number and not recorded:
            self.open.put(number, experiment)
        else:
            self.open.remove(number)
        if recorded and experiment.kept:
            self.kept.put(experiment.order, experiment)
        elif experiment.verdict is not None:  # without one it has no place in that order
            self.kept.remove(experiment.order)

    def changes(self, since: int) -> tuple[int, Sequence[Experiment]]:
        """Experiments that are new or have changed since an earlier call, as they are now.

        Args:
            since: What the earlier call returned first; 0: all.

        Returns:
            What to give the next call; and the experiments, each once, in the order of their last change.
        """
        latest = dict.fromkeys(reversed(self._changed[since:]))
        return len(self._changed), [self.by_number[number] for number in reversed(latest)]
