"""The nouns every room shares: a product, and what became of its description."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["kept", "generated", "approved", "held", "pending", "rejected"]


@dataclass(frozen=True, slots=True)
class Product:
    """What is known of a row before a text is written; all of it cleaned, none of it cut.

    `attributes` are (name, value) pairs in the order the operator chose, without the empty ones. Two rows
    with equal products are the same product, whatever else their rows say.
    """

    title: str
    attributes: tuple[tuple[str, str], ...] = ()

    def __reduce__(self) -> tuple[type["Product"], tuple[str, tuple[tuple[str, str], ...]]]:
        # From process to process by the million: what a data class does of itself takes four times as long.
        return Product, (self.title, self.attributes)


@dataclass(frozen=True, slots=True)
class Description:
    """A row's fate: the text to publish (None: the cell keeps its value), why, and how good it is (0-100)."""

    status: Status
    text: str | None = None
    flags: tuple[str, ...] = ()
    score: int | None = None
