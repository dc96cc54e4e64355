"""A memory that was lost, made again from what was published with it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from enrich.authors import Authors
from enrich.catalog.columns import FLAGS, SCORE, STATUS, Columns, Gap, resolve_columns
from enrich.catalog.publish import former_footer
from enrich.catalog.read import Batch, Catalogue, open_catalogue
from enrich.errors import CatalogueError, NoInput, SettingsError
from enrich.fates import TITLE_CUT
from enrich.memory import Entry, Memory, Review, Verdict
from enrich.night import default_state, how_to_read
from enrich.plan import products_with_keys
from enrich.products import Product
from enrich.quality.judge import Judge
from enrich.recipe import product_key
from enrich.settings import Settings
from enrich.state import State
from enrich.verdicts import verdict_on


@dataclass
class Rebuilt:
    """How many texts of the model, and how many decisions of a person, are remembered again."""

    texts: int = 0
    approved: int = 0


@dataclass(frozen=True)
class _Published:
    """A text as a published file has it, with what is said of it there."""

    text: str
    status: str
    flags: tuple[str, ...]
    score: int | None


def rebuild(outputs: Sequence[Path], settings: Settings) -> Rebuilt:
    """Remembers the generated and approved texts of published files, which today's model and settings must have made.

    The next run of their catalogues publishes the same bytes and writes nothing anew but what was held or pending: a
    text that was not published is in no file. What is remembered already stays. Raises `NoInput` when a file is not
    there, `CatalogueError` when it is none of ours, `SettingsError` when another model or other settings made it.
    """
    authors, rebuilt = Authors.choose(settings), Rebuilt()
    for output in outputs:
        if not output.is_file():
            raise NoInput(f"{output}: no such file: name a published catalogue")
    state = State(settings.machine.state or default_state(outputs[0]))
    with state.locked(), Memory.open(state.memory) as memory, TemporaryDirectory() as folder:
        for output in outputs:
            catalogue = open_catalogue(output, how_to_read(settings.catalogue, settings.adapters.column), Path(folder))
            _refuse_another_author(catalogue, authors)
            chosen, route = settings.catalogue, settings.adapters.column
            columns = resolve_columns(catalogue.schema, chosen, catalogue.num_rows, route)
            for batch in catalogue.batches([*columns.needed(), STATUS, FLAGS, SCORE]):
                _remember(list(_published(batch, columns)), authors, memory, rebuilt)
    return rebuilt


def _refuse_another_author(catalogue: Catalogue, authors: Authors) -> None:
    footer = former_footer(catalogue.schema)
    if footer is None:
        raise CatalogueError(f"{catalogue.source}: this tool did not publish it", "foreign")
    if footer.get("former"):
        raise SettingsError(
            f"{catalogue.source}: its input was a published file, and whose text is whose cannot be told; "
            "name the file that was published first"
        )
    others = [what for what, now in authors.provenance().items() if footer.get(what) != now]
    if others:
        raise SettingsError(
            f"{catalogue.source}: made with another {' and another '.join(others)} than today's: name the model and "
            "the settings it was made with"
        )


def _published(batch: Batch, columns: Columns) -> Iterator[tuple[Gap, _Published]]:
    """The rows whose texts are ours, as the gaps they were, each with its text."""
    ours = batch.rows.filter(pc.is_in(batch.rows.column(STATUS), pa.array(["generated", "approved"])))
    index = ours.schema.get_field_index(columns.description)
    nothing = pa.nulls(ours.num_rows, ours.field(index).type)
    gaps = columns.gaps(replace(batch, rows=ours.set_column(index, ours.field(index), nothing)), ())
    texts, *said = (ours.column(name).to_pylist() for name in (columns.description, STATUS, FLAGS, SCORE))
    for gap, text, status, flags, score in zip(gaps, texts, *said, strict=True):
        yield gap, _Published(text.decode() if isinstance(text, bytes) else text, status, tuple(flags), score)


def _remember(published: Sequence[tuple[Gap, _Published]], authors: Authors, memory: Memory, rebuilt: Rebuilt) -> None:
    entries: dict[str, dict[bytes, Entry]] = {}
    reviews: dict[bytes, Review] = {}
    gaps = [gap for gap, _ in published]
    for (gap, was), asked in zip(published, products_with_keys(gaps, authors.recipe_of), strict=True):
        if isinstance(asked, str):
            continue
        key, product = asked
        if was.status == "approved":
            reviews[product_key(product)] = Review(was.status, was.text)
        else:
            entry = _entry(key, product, was, authors.default.judge)
            entries.setdefault(authors.recipe_of(gap).digest, {})[key] = entry
    for recipe, some in entries.items():
        memory.add(memory.begin_run(f"rebuilt {recipe}", recipe), list(some.values()))
        rebuilt.texts += len(some)
    memory.add_reviews(reviews)
    rebuilt.approved += len(reviews)


def _entry(key: bytes, product: Product, was: _Published, judge: Judge) -> Entry:
    """As the first attempt. Today's rules have the last word; where they let it out, it says what it said."""
    ended = "length" if "trimmed" in was.flags else "eos"
    verdict = verdict_on(judge, was.text, ended, product)
    if verdict.action == "publish":
        flags: Any = tuple(flag for flag in was.flags if flag != TITLE_CUT)
        verdict = Verdict(judge.policy, verdict.action, was.text, flags, was.score)
    return Entry(key, 0, was.text, ended, verdict, cut=TITLE_CUT in was.flags)
