"""The store: the directory or bucket that holds results, models and failures, with what of them can be trusted."""

from orchestrator.store.store import Store, StoreError, open_store

__all__ = ["Store", "StoreError", "open_store"]
