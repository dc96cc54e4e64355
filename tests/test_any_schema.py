"""Whatever a catalogue's columns are: nothing but the gaps changes, and `verify` sees every single change."""

import datetime
import math
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import enrich
from enrich.errors import Difference

from .runs import enrich as run_echo

_ZONE = datetime.UTC
_LEAVES = st.sampled_from(
    [
        (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pa.uint8(), st.integers(0, 255)),
        (pa.float64(), st.floats()),
        (pa.bool_(), st.booleans()),
        (pa.string(), st.text(max_size=20)),
        (pa.large_string(), st.text(max_size=20)),
        (pa.string_view(), st.text(max_size=20)),
        (pa.binary(), st.binary(max_size=20)),
        (pa.decimal128(12, 3), st.decimals(-1000, 1000, places=3)),
        (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(_ZONE))),
        (pa.date32(), st.dates()),
        (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["a", "b", "ç"])),
    ]
)


def _nested(inner: Any) -> Any:
    def lists(each: Any) -> Any:
        data_type, values = each
        return pa.list_(data_type), st.lists(st.none() | values, max_size=3)

    def structs(pair: Any) -> Any:
        (first, firsts), (second, seconds) = pair
        fields = pa.struct([("x", first), ("y", second)])
        return fields, st.fixed_dictionaries({"x": st.none() | firsts, "y": st.none() | seconds})

    def maps(each: Any) -> Any:
        data_type, values = each
        return pa.map_(pa.string(), data_type), st.lists(st.tuples(st.text(max_size=5), values), max_size=3)

    # Arrow cannot yet build nested dictionaries and views from Python values.
    plain = inner.filter(lambda each: not (pa.types.is_dictionary(each[0]) or pa.types.is_string_view(each[0])))
    return plain.map(lists) | st.tuples(plain, plain).map(structs) | plain.map(maps)


_TYPES = st.recursive(_LEAVES, _nested, max_leaves=3)
_NAMES = st.text(min_size=1, max_size=12).filter(
    lambda name: name.strip().lower() not in RESERVED and name.isprintable() and not name.startswith("enrich_")
)
RESERVED = {"title", "description"}


@st.composite
def catalogues(draw: Any) -> tuple[pa.Table, int]:
    num_rows = draw(st.integers(0, 12))
    texts = st.sampled_from([None, "", "  ", "A described thing.", " kept as it is ", "N/A"])
    columns = {
        "title": pa.array([f"Product {at}" for at in range(num_rows)]),
        "description": pa.array(
            [draw(texts) for _ in range(num_rows)],
            draw(st.sampled_from([pa.string(), pa.large_string(), pa.string_view()])),
        ),
    }
    for name in draw(st.lists(_NAMES, max_size=4, unique=True)):
        data_type, values = draw(_TYPES)
        columns[name] = pa.array([draw(st.none() | values) for _ in range(num_rows)], data_type)
    names = draw(st.permutations(list(columns)))
    metadata = draw(st.sampled_from([None, {b"pandas": b'{"columns": []}', b"huggingface": b"{}"}]))
    table = pa.table({name: columns[name] for name in names}).replace_schema_metadata(metadata)
    return table, draw(st.integers(1, 5))


def _same(first: Any, second: Any) -> bool:
    """Equality of Python values in which NaN is itself and 0.0 is not -0.0."""
    if isinstance(first, float) and isinstance(second, float):
        return (math.isnan(first) and math.isnan(second)) or (
            first == second and math.copysign(1, first) == math.copysign(1, second)
        )
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    return bool(first == second) and type(first) is type(second)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(catalogue=catalogues())
def test_nothing_but_the_gaps_changes(
    tmp_path_factory: pytest.TempPathFactory, catalogue: tuple[pa.Table, int]
) -> None:
    table, row_group_rows = catalogue
    source = tmp_path_factory.mktemp("any") / "catalog.parquet"
    pq.write_table(table, source, row_group_size=row_group_rows)
    table = pq.ParquetFile(source).read()
    assert run_echo(source).status == 0
    published = pq.ParquetFile(source.with_name("catalog.enriched.parquet")).read()
    assert published.schema.names[: table.num_columns] == table.schema.names
    assert published.num_rows == table.num_rows
    for field in table.schema:
        assert published.schema.field(field.name).equals(field, check_metadata=True)
        if field.name != "description":
            assert _same(table[field.name].to_pylist(), published[field.name].to_pylist()), field
    assert (table.schema.metadata or {}).items() <= published.schema.metadata.items()
    rows = zip(table["description"].to_pylist(), published.to_pylist(), strict=True)
    for at, (before, after) in enumerate(rows):
        if before is not None and before.strip():
            assert (after["description"], after["enrich_status"]) == (before, "kept")
        else:
            assert (after["description"], after["enrich_status"]) == (f"Product {at}", "generated")
    enrich.verify(source)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    dice = random.Random(0)
    table = pa.table(
        {
            "id": [f"{at:03}" for at in range(60)],
            "title": [f"Product {at}" for at in range(60)],
            "description": [None if at % 3 == 0 else f"Text {at}." for at in range(60)],
            "price": pa.array([Decimal(dice.randrange(1000)) / 100 for _ in range(60)], pa.decimal128(8, 2)),
            "tags": [[f"t{at}", None] if at % 4 else None for at in range(60)],
        }
    )
    source = tmp_path / "catalog.parquet"
    pq.write_table(table, source, row_group_size=17)
    assert run_echo(source).status == 0
    enrich.verify(source)
    return source, tmp_path / "catalog.enriched.parquet"


def _with(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    values = table[name].to_pylist()
    values[row] = value
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: _with(t, "price", 41, Decimal("0.01")), "column price, row 41"),
        (lambda t: _with(t, "tags", 5, ["t5"]), "column tags, row 5"),
        (lambda t: _with(t, "tags", 8, []), "column tags, row 8"),
        (lambda t: _with(t, "id", 59, None), "column id, row 59"),
        (lambda t: _with(t, "description", 4, "Text 4"), "column description, row 4"),
        (lambda t: _with(t, "description", 4, None), "column description, row 4"),
        (lambda t: _with(t, "description", 3, None), "row 3: generated, but there is no text"),
        (lambda t: _with(t, "enrich_status", 3, "held"), "column description, row 3"),
        (lambda t: _with(t, "enrich_status", 3, "kept"), "row 3: its status is kept"),
        (lambda t: _with(t, "enrich_status", 4, "pending"), "row 4: its status is pending"),
        (lambda t: _with(t, "enrich_status", 4, "generated"), "row 4: its status is generated"),
        (lambda t: _with(t, "enrich_status", 4, "approved"), "row 4: its status is approved"),
        (lambda t: _with(t, "enrich_status", 4, None), "row 4: its status is None"),
        (lambda t: _with(t, "description", 3, "  "), "row 3: generated, but there is no text"),
        (lambda t: t.take([1, 0, *range(2, 60)]), "column id, row 0"),
        (lambda t: t.slice(0, 59), "the output 59"),
        (lambda t: pa.concat_tables([t, t.slice(0, 1)]), "the output 61"),
        (lambda t: t.drop_columns(["tags"]), "the columns are"),
        (lambda t: t.set_column(0, "id", t["id"].cast(pa.large_string())), "column id was string"),
    ],
)
def test_verify_sees_every_single_change(pair: tuple[Path, Path], change: Any, told: str) -> None:
    source, output = pair
    changed = change(pq.ParquetFile(output).read())
    pq.write_table(changed, output, use_compliant_nested_type=False)
    with pytest.raises(Difference, match=told):
        enrich.verify(source)


def test_verify_sees_lost_metadata(pair: tuple[Path, Path]) -> None:
    source, output = pair
    table = pq.ParquetFile(source).read()
    pq.write_table(table.replace_schema_metadata({"pandas": "{}"}), source)
    with pytest.raises(Difference, match="metadata"):
        enrich.verify(source, output)


def test_a_text_in_place_of_a_text_is_no_gap_filled(pair: tuple[Path, Path]) -> None:
    """The input is the witness: a description that was there may not be told as generated."""
    source, output = pair
    changed = _with(pq.ParquetFile(output).read(), "description", 7, "Something else.")
    pq.write_table(_with(changed, "enrich_status", 7, "generated"), output, use_compliant_nested_type=False)
    with pytest.raises(Difference, match="row 7"):
        enrich.verify(source)


def test_verify_of_an_output_fed_back_wants_the_statuses_that_came_in(pair: tuple[Path, Path], tmp_path: Path) -> None:
    _, once = pair
    twice = tmp_path / "twice.parquet"
    assert run_echo(once, twice).status == 0
    enrich.verify(once, twice)
    for row, lie in ((3, "kept"), (3, "approved"), (4, "generated")):
        changed = _with(pq.ParquetFile(twice).read(), "enrich_status", row, lie)
        pq.write_table(changed, tmp_path / "lie.parquet", use_compliant_nested_type=False)
        with pytest.raises(Difference, match=f"row {row}: its status is {lie}"):
            enrich.verify(once, tmp_path / "lie.parquet")
