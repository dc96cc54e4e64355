"""How often Python looks for garbage that only a search finds."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# New objects between two searches; Python's own 700 are some ten rows.
_OBJECTS = 50_000


@contextmanager
def seldom_sought() -> Iterator[None]:
    """Rows and texts have no cycles: to look for some whenever a few came costs a fifth of the driver's time."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def never_sought() -> Iterator[None]:
    """Parsed JSON has no cycles, and the collector's walks over millions of dicts double the parsing time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
