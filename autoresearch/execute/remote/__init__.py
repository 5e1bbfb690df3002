"""An executor whose places are workers on other machines, of any engine.

`executor` gives trials to places, `workers` keeps a worker at each, `orders` makes attempts and moves their
files, and `records` knows how places fare.
"""

from autoresearch.execute.remote.executor import RemoteExecutor
from autoresearch.execute.remote.records import kind, places_told
from autoresearch.execute.remote.workers import Engine

__all__ = ["Engine", "RemoteExecutor", "kind", "places_told"]
