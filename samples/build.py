"""Builds the samples: `python samples/build.py [FOLDER]` writes catalog.parquet, catalog.jsonl and pairs.jsonl.

Hand-written families (`families_*.toml`) become one product a colour and version; `singles.toml` adds the
odd ones a real shop sends. The same sources give the same bytes. It refuses to know of `enrich`: to the tool,
this is a stranger's file.
"""

import sys
import tomllib
from collections.abc import Iterator
from hashlib import blake2b
from itertools import cycle, product
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

SOURCES = Path(__file__).resolve().parent
ROW_GROUP_ROWS = 128

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "title": pa.string(),
        "description": pa.string(),
        "brand": pa.string(),
        "category": pa.string(),
        "price": pa.float64(),
        "attributes": pa.struct(
            {
                "color": pa.string(),
                "material": pa.string(),
                "size": pa.string(),
                "feature": pa.string(),
                "weight_g": pa.int32(),
                "dimensions": pa.struct({"length_cm": pa.float64(), "width_cm": pa.float64()}),
            }
        ),
        "tags": pa.list_(pa.string()),
        "in_stock": pa.bool_(),
        "language": pa.string(),
    }
)

# How shops spell "no description", the commonest most often.
_MISSING = (
    None,
    "",
    None,
    "N/A",
    None,
    "   ",
    None,
    "-",
    None,
    "sem descrição",
    "",
    None,
    "n/a",
    " Sem Descrição ",
)

Row = dict[str, Any]


def build(folder: Path) -> None:
    """Writes both catalogues into `folder`, the same rows in each, and the training pairs."""
    table = pa.Table.from_pylist(catalogue(), schema=SCHEMA)
    pq.write_table(
        table,
        folder / "catalog.parquet",
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        write_page_checksum=True,
    )
    _write_lines(folder / "catalog.jsonl", table.to_pylist())
    _write_lines(folder / "pairs.jsonl", pairs())


def _write_lines(file: Path, rows: list[Row]) -> None:
    file.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))


def catalogue() -> list[Row]:
    """All rows, in the order and under the ids of the catalogue."""
    regular = _without_some_descriptions([*_family_products("pt"), *_family_products("en")])
    rows = [*regular, *_listed_twice(regular), *_read("singles")["product"], _stuffed_product()]
    mixed = [row for _, row in sorted(enumerate(rows), key=lambda numbered: _shuffled(numbered[0]))]
    return [{**row, "id": f"{number:05d}", "in_stock": number % 7 != 4} for number, row in enumerate(mixed, start=1)]


def pairs() -> list[Row]:
    """What an adapter can learn from: the products of all families, each with its description."""
    names = ("title", "description", "brand", "category", "attributes", "language")
    return [{name: row[name] for name in names} for language in ("pt", "en") for row in _family_products(language)]


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((SOURCES / f"{name}.toml").read_text(encoding="utf-8"))


def _shuffled(number: int) -> bytes:
    return blake2b(str(number).encode()).digest()


def _family_products(language: str) -> Iterator[Row]:
    source = _read(f"families_{language}")
    for family in source["family"]:
        descriptions = cycle(family["descriptions"])
        colors = family.get("colors", [family.get("color")])
        for version, color in product(family["versions"], colors):
            traits = {**family, "color": color, **version}
            yield _family_product(traits, next(descriptions), source["language"])


def _family_product(traits: Row, description: str, language: str) -> Row:
    slots = _slots(traits, language)
    return {
        "title": traits["title"].format_map(slots),
        "description": description.format_map(slots),
        "brand": traits["brand"],
        "category": traits["category"],
        "price": traits["price"],
        "attributes": _attributes(traits),
        "tags": traits["tags"],
        "language": language,
    }


def _attributes(traits: Row) -> Row:
    sides = {side: traits.get(side) for side in ("length_cm", "width_cm")}
    plain = {name: traits.get(name) for name in ("color", "material", "size", "feature", "weight_g")}
    return {**plain, "dimensions": sides if any(sides.values()) else None}


def _slots(traits: Row, language: str) -> dict[str, str]:
    """What a template may mention: what the product has, and nothing else."""
    told = {
        key: _spelled(value, language)
        for key, value in traits.items()
        if isinstance(value, str | int | float) and key not in ("title", "price")
    }
    told["plain_name"] = told.get("name", "").lower()
    return told | {key.capitalize(): text[:1].upper() + text[1:] for key, text in told.items()}


def _spelled(value: str | float, language: str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}".replace(".", "," if language == "pt" else ".")


def _without_some_descriptions(rows: list[Row]) -> list[Row]:
    """Two of every five lose their description, each family at other places."""
    missing = cycle(_MISSING)
    return [row | {"description": next(missing)} if number % 5 in (1, 3) else row for number, row in enumerate(rows)]


def _listed_twice(rows: list[Row]) -> list[Row]:
    """Some products once more; two of every three copies without a description."""
    copies = rows[7::29]
    return [copy if number % 3 == 0 else copy | {"description": None} for number, copy in enumerate(copies)]


def _stuffed_product() -> Row:
    """A title that lists every model it fits, thousands of characters of them."""
    models = (
        f"Celulargo {line}{number}{suffix}"
        for line, number, suffix in product("ABEKMXZ", range(1, 8), ("", " Max", " Mini"))
    )
    return {
        "title": "Capinha de Silicone Plugaré Preta compatível com " + ", ".join(models),
        "brand": "Plugaré",
        "category": "Eletrônicos > Acessórios > Capinhas",
        "price": 29.90,
        "attributes": {"color": "preta", "material": "silicone"},
        "tags": ["capinha", "celular"],
        "language": "pt",
    }


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCES)
