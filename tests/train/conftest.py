"""Tiny models train here as they run beside: in one thread."""

from tests.engine.conftest import _one_thread

__all__ = ["_one_thread"]
