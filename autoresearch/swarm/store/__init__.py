"""The store of a server of tracks; `store.py` says what it promises."""

from autoresearch.swarm.store.file import FOLDER, Busy, OverQuota, Received, State
from autoresearch.swarm.store.store import Store

__all__ = ["FOLDER", "Busy", "OverQuota", "Received", "State", "Store"]
