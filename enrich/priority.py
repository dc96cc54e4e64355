"""What comes first in a night that may not get to its end: the products with the largest values of a column."""

import math
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import orjson

from enrich.plan import Share, Wanted
from enrich.products import Product
from enrich.scratch import scratch

_SCHEMA = "CREATE TABLE waiting (key BLOB PRIMARY KEY, value, at INTEGER, attempt INTEGER, product BLOB)"
_ADD = """
INSERT INTO waiting VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET value = excluded.value WHERE excluded.value > value OR value IS NULL
"""
# What has no value is the smallest there is.
_LARGEST_FIRST = "SELECT key, product, attempt FROM waiting ORDER BY value DESC, at"


def largest_first(shares: Iterable[Share]) -> Iterator[Wanted]:
    """What is wanted, by the largest value of the priority's column; of equals, and without a value, in their order.

    Everything waits on disk (SQLite's temporary database), since it grows with the catalogue. A product that is wanted
    twice comes once.
    """
    with scratch("put rows in their order") as waiting:
        waiting.execute(_SCHEMA)
        count = 0
        for share in shares:
            for each in share.wanted:
                value = _comparable(share.priorities[each.key])
                product = orjson.dumps([each.product.title, each.product.attributes])
                waiting.execute(_ADD, (each.key, value, count, each.attempt, product))
                count += 1
        for key, product, attempt in waiting.execute(_LARGEST_FIRST):
            title, attributes = orjson.loads(product)
            yield Wanted(key, Product(title, tuple((name, text) for name, text in attributes)), attempt)


def _comparable(value: Any) -> float | int | str | None:
    """As SQLite orders it: numbers by size, times and texts by their characters; None for what has no order."""
    match value:
        case bool() | int():
            # Beyond 64 bits SQLite takes no integer.
            return value if -(2**63) <= value < 2**63 else float(value)
        case float():
            return None if math.isnan(value) else value
        case Decimal():
            return None if value.is_nan() else float(value)
        case str():
            return value
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            return None
