"""What a night has to do: the products whose texts are missing, each with its key.

Both passes over a catalogue ask here what a gap is about, so they can never disagree about a key.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from enrich.catalog.columns import Columns, Described, Gap
from enrich.catalog.read import Catalogue
from enrich.memory import Memory, Remembered
from enrich.products import Product
from enrich.recipe import Recipe
from enrich.text import clean, is_usable
from enrich.verdicts import Verdicts, best, decisions, is_held, is_to_be_tried_again

RecipeOf = Callable[[Gap], Recipe]


class Wanted(NamedTuple):
    """A text to write: for which product, and which attempt at it, from 0."""

    key: bytes
    product: Product
    attempt: int = 0


class Share(NamedTuple):
    """What a round has to do for a batch of the catalogue: its rows, how many of them miss a description, how many of
    those cannot be described, what is to be written, and the values of the priority's column by key, where one is."""

    num_rows: int
    missing: int
    rejected: int
    wanted: list[Wanted]
    priorities: Mapping[bytes, Any]


class Round(Protocol):
    """One pass over a catalogue: which of its products are to be written, and at which attempt."""

    def choose(self, products: Mapping[bytes, Product]) -> list[Wanted]: ...


@dataclass(frozen=True)
class Missing:
    """The first round: what has no text, neither of the model nor of a person."""

    memory: Memory

    def choose(self, products: Mapping[bytes, Product]) -> list[Wanted]:
        known = self.memory.known(products.keys())
        unknown = {key: product for key, product in products.items() if key not in known}
        decided = decisions(self.memory, unknown)
        return [Wanted(key, product) for key, product in unknown.items() if key not in decided]


@dataclass(frozen=True)
class Further:
    """A later round: one more attempt at each product whose texts ask for it, but where a person has decided."""

    verdicts: Verdicts
    asks: Callable[[Sequence[Remembered]], bool]

    def choose(self, products: Mapping[bytes, Product]) -> list[Wanted]:
        return [
            Wanted(key, products[key], texts[-1].attempt + 1)
            for key, texts in self.verdicts.unreviewed(products).items()
            if self.asks(texts)
        ]


def again(verdicts: Verdicts, last: int) -> Further:
    """Those of which no text may be published and the latest asks for another attempt, up to the attempt `last`."""
    return Further(verdicts, lambda texts: is_to_be_tried_again(texts) and texts[-1].attempt < last)


def held(verdicts: Verdicts, run: int, attempts: int) -> Further:
    """Those that are held, `attempts` more times within the run of that id."""
    return Further(verdicts, lambda texts: is_held(texts) and sum(text.run == run for text in texts) < attempts)


def rejected(verdicts: Verdicts, run: int) -> Further:
    """Those that the model could not write, once more within the run of that id."""
    return Further(verdicts, lambda texts: best(texts).ended == "failed" and texts[-1].run != run)


def product_of(row: Gap | Described) -> Product | str:
    """The product that a row is about, or the code for why there is none; the same for training and generation."""
    if row.defect:
        return row.defect
    if row.title is None or not row.title.strip():
        return "no_title"
    title = clean(row.title)
    if not is_usable(title):
        return "unusable_title"
    named = ((path.rsplit(".", 1)[-1], clean(_as_text(value))) for path, value in row.attributes)
    return Product(title, tuple((name, text) for name, text in named if text))


def routing_value(gap: Gap) -> str | None:
    """What a row says in the column that chooses its adapter, cleaned; None where it says nothing."""
    return None if gap.route is None else clean(_as_text(gap.route))


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


def products_with_keys(gaps: Sequence[Gap], recipe_of: RecipeOf) -> list[tuple[bytes, Product] | str]:
    """For each gap its key and product, or the code for why there is none."""
    products = map(product_of, gaps)
    return [
        product if isinstance(product, str) else (recipe_of(gap).key(product), product)
        for gap, product in zip(gaps, products, strict=True)
    ]


def in_order(shares: Iterable[Share]) -> Iterator[Wanted]:
    """What is wanted, as it comes."""
    for share in shares:
        yield from share.wanted


def shares(
    catalogue: Catalogue,
    columns: Columns,
    placeholders: Collection[str],
    recipe: Recipe,
    recipe_of: RecipeOf,
    round_: Round,
    in_flight: Collection[bytes],
) -> Iterator[Share]:
    """A batch of the catalogue at a time: what a round has to write for it by `recipe` that is not `in_flight`. Rows
    of other recipes are passed over.

    Duplicates are dropped by looking no further than the batch, what is in flight and the memory, so nothing
    here grows with the catalogue.
    """
    for batch in catalogue.batches(columns.needed()):
        # By digest: to compare recipes field by field for every row would be felt.
        gaps = [gap for gap in columns.gaps(batch, placeholders) if recipe_of(gap).digest == recipe.digest]
        asked = products_with_keys(gaps, recipe_of)
        products = dict(each for each in asked if not isinstance(each, str))
        yield Share(
            num_rows=batch.rows.num_rows,
            missing=len(gaps),
            rejected=sum(isinstance(each, str) for each in asked),
            wanted=[each for each in round_.choose(products) if each.key not in in_flight],
            priorities={}
            if columns.priority is None
            else {each[0]: gap.priority for gap, each in zip(gaps, asked, strict=True) if not isinstance(each, str)},
        )
