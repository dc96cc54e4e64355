"""What is held, worst first, for a person to decide about: JSON lines that `enrich.review` takes back."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from enrich import durable
from enrich.authors import Authors
from enrich.catalog.columns import Gap, resolve_columns
from enrich.catalog.read import open_catalogue
from enrich.errors import IOFailure, NoInput
from enrich.memory import Memory, Remembered
from enrich.night import default_state, how_to_read
from enrich.plan import products_with_keys
from enrich.products import Product
from enrich.quality.judge import Judge
from enrich.recipe import product_key
from enrich.scratch import scratch
from enrich.settings import Settings
from enrich.state import State
from enrich.text import json_line
from enrich.verdicts import Verdicts, best, is_held


def write_held(output: Path, file: Path, settings: Settings) -> int:
    """Writes the held rows of a published file as JSON lines, worst first; how many.

    Each line has the row, its best text, its flags and score, every unsupported span with kind and place, and a
    `decision` to fill in. Rows of the same product are one line. Raises `NoInput` when nothing is published there.
    """
    if not output.is_file():
        raise NoInput(f"{output}: no such file: name a published catalogue")
    state = State(settings.machine.state or default_state(output))
    with state.locked(), Memory.open(state.memory) as memory, scratch("sort what is held") as room:
        lines = _Sorted(room)
        for score, key, row in _held(output, settings, memory):
            lines.add(score, key, json_line(row))
        return _write(file, lines)


def _write(file: Path, lines: "_Sorted") -> int:
    temp, count = durable.temporary(file), 0
    durable.discard(temp)
    try:
        with temp.open("x", encoding="utf-8") as stream:
            for count, line in enumerate(lines, start=1):  # noqa: B007
                stream.write(f"{line}\n")
        durable.replace(temp, file)
    except OSError as error:
        raise IOFailure(f"{file}: cannot be written: {error.strerror}; name another --out") from error
    finally:
        durable.discard(temp)
    return count


def _held(output: Path, settings: Settings, memory: Memory) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    authors = Authors.choose(settings)
    judge = authors.default.judge
    verdicts = Verdicts(memory, judge)
    with TemporaryDirectory() as scratch:
        catalogue = open_catalogue(output, how_to_read(settings.catalogue, settings.adapters.column), Path(scratch))
        columns = resolve_columns(catalogue.schema, settings.catalogue, catalogue.num_rows, settings.adapters.column)
        # A plan needs no id, a person does.
        names, begin = [*columns.needed(), *([columns.id] if columns.id else [])], 0
        for batch in catalogue.batches(list(dict.fromkeys(names))):
            gaps = columns.gaps(batch, settings.catalogue.placeholders)
            asked = products_with_keys(gaps, authors.recipe_of)
            products = dict(each for each in asked if not isinstance(each, str))
            held = {key: best(texts) for key, texts in verdicts.unreviewed(products).items() if is_held(texts)}
            for gap, each in zip(gaps, asked, strict=True):
                if not isinstance(each, str) and each[0] in held:
                    key, product = each
                    line = _line(gap, begin + gap.index, product, held[key], judge)
                    yield line["score"], product_key(product), line
            begin += batch.rows.num_rows


def _line(gap: Gap, row: int, product: Product, text: Remembered, judge: Judge) -> dict[str, Any]:
    shown = text.judged.text or ""
    return {
        "product": product_key(product).hex(),
        "row": row,
        "id": None if gap.id is None else str(gap.id),
        "title": product.title,
        "attributes": dict(product.attributes),
        "text": shown,
        "score": text.judged.score or 0,
        "flags": list(text.judged.flags),
        "unsupported": [
            {"kind": span.kind, "text": shown[span.start : span.end], "start": span.start, "end": span.end}
            for span in judge.spans(shown, product)
        ],
        "decision": None,
    }


class _Sorted:
    """Lines by score, then as they came, one a product; on disk, since they grow with the catalogue."""

    def __init__(self, room: sqlite3.Connection) -> None:
        self._room, self._count = room, 0
        room.execute("CREATE TABLE line (product BLOB PRIMARY KEY, score INTEGER, at INTEGER, content)")

    def add(self, score: int, product: bytes, content: str) -> None:
        self._count += 1
        row = (product, score, self._count, content)
        self._room.execute("INSERT OR IGNORE INTO line VALUES (?, ?, ?, ?)", row)

    def __iter__(self) -> Iterator[str]:
        for (content,) in self._room.execute("SELECT content FROM line ORDER BY score, at"):
            yield content
