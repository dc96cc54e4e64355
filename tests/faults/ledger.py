"""What the fault tests count: faults that fired, that were survived, and rows lost, by kind."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ledger:
    """`note` takes a name and a value; the tests' is pytest's `record_property`, which survives its worker process."""

    note: Callable[[str, object], None]

    def add(self, kind: str, *, fired: int = 1, survived: int = 1, lost: int = 0) -> None:
        self.note("fault", [kind, fired, survived, lost])
