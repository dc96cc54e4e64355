"""What a night has to do: the products whose texts are missing, each with its key.

Both passes over a catalogue ask here what a gap is about, so they can never disagree about a key.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from enrich.catalog.columns import Columns, Gap
from enrich.catalog.read import Catalogue
from enrich.memory import Memory
from enrich.products import Product
from enrich.recipe import Recipe
from enrich.text import clean, is_usable

Wanted = tuple[bytes, Product]


def product_of(gap: Gap) -> Product | str:
    """The product that a row without a description is about, or the code for why there is none."""
    if gap.defect:
        return gap.defect
    if gap.title is None or not gap.title.strip():
        return "no_title"
    title = clean(gap.title)
    if not is_usable(title):
        return "unusable_title"
    named = ((path.rsplit(".", 1)[-1], clean(_as_text(value))) for path, value in gap.attributes)
    return Product(title, tuple((name, text) for name, text in named if text))


def _as_text(value: Any) -> str:
    """An attribute of any type as one would write it; empty when there is nothing to say."""
    match value:
        case str():
            return value
        case bool():
            return "yes" if value else "no"
        case int() | float() | Decimal():
            return str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case dict():
            members = ((name, _as_text(member)) for name, member in value.items())
            return ", ".join(f"{name}: {text}" for name, text in members if text)
        case list():
            return ", ".join(filter(None, map(_as_text, value)))
        case _:
            return ""


def products_with_keys(gaps: Sequence[Gap], recipe: Recipe) -> list[Wanted | str]:
    """For each gap its key and product, or the code for why there is none."""
    products = map(product_of, gaps)
    return [product if isinstance(product, str) else (recipe.key(product), product) for product in products]


def wanted(
    catalogue: Catalogue,
    columns: Columns,
    placeholders: Collection[str],
    recipe: Recipe,
    memory: Memory,
    in_flight: Collection[bytes],
) -> Iterator[tuple[int, list[Wanted]]]:
    """A batch of the catalogue at a time: its number of rows, and the products to write for it, those that
    are missing, not remembered and not `in_flight`.

    Duplicates are dropped by looking no further than the batch, what is in flight and the memory, so nothing
    here grows with the catalogue.
    """
    for batch in catalogue.batches(columns.needed()):
        gaps = columns.gaps(batch, placeholders)
        new = dict(each for each in products_with_keys(gaps, recipe) if not isinstance(each, str))
        known = memory.known(new.keys())
        unknown = [(key, new[key]) for key in new if key not in known and key not in in_flight]
        yield batch.rows.num_rows, unknown
