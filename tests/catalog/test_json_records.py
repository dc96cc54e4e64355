"""Records come out exactly as they went in, and what cannot is told and nothing else is touched."""

import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.catalog.json_records import DEFECT, RecordParser
from enrich.catalog.json_stream import RawChunk
from enrich.catalog.quarantine import Quarantine
from enrich.catalog.schema import Irreconcilable
from enrich.errors import CatalogueError

_TEXTS = st.text(st.sampled_from('ab":\\ ,\u2028é😀'), max_size=8)
_SPACES = st.text(st.sampled_from(" \t\r"), max_size=2)
_INT64 = st.integers(-(2**63), 2**63 - 1)
# Each column of one type of its own, so that any records fit together.
_RECORD = st.fixed_dictionaries(
    {},
    optional={
        "title": st.none() | _TEXTS,
        "id": st.none() | _INT64,
        "price": st.floats(-1e18, 1e18),
        "live": st.booleans(),
        "tags": st.lists(_TEXTS | st.none(), max_size=3),
        "size": st.fixed_dictionaries(
            {}, optional={"cm": _INT64, "of": st.lists(st.fixed_dictionaries({"k": _TEXTS}))}
        ),
    },
)


class Parsed:
    """What a parser made of raw records, one on a line."""

    def __init__(self, folder: Path, *raws: bytes, open_end: bool = False) -> None:
        file = folder / "quarantine.jsonl"
        used = frozenset({"title", "description"})
        with Quarantine(file, "catalogue.jsonl") as quarantine:
            self.parser = RecordParser(used, used, quarantine)
            batch = self.parser.parse(RawChunk(list(raws), range(1, len(raws) + 1), open_end=open_end))
            quarantine.finish()
        self.batch = batch
        self.rows: list[dict[str, Any]] = [] if batch is None else batch.to_pylist()
        self.defects = [row.pop(DEFECT) for row in self.rows]
        entries = [orjson.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []
        self.told = [(each["line"], each["reason"], each.get("columns")) for each in entries]


def _dumps(value: Any, space: str = "") -> bytes:
    return json.dumps(value, separators=(f",{space}", f"{space}:{space}"), ensure_ascii=False).encode()


def _without_empty_objects(value: Any) -> Any:
    """What a typed column can hold: an object without a member is null, and so is a member that is not there."""
    if isinstance(value, dict):
        members = {key: _without_empty_objects(member) for key, member in value.items()}
        return {key: member for key, member in members.items() if member is not None} or None
    return [_without_empty_objects(member) for member in value] if isinstance(value, list) else value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_RECORD, min_size=1, max_size=6), _SPACES)
def test_records_come_out_as_they_went_in(tmp_path: Path, records: list[Any], space: str) -> None:
    parsed = Parsed(tmp_path, *(_dumps(record, space) for record in records))
    assert list(map(_without_empty_objects, parsed.rows)) == list(map(_without_empty_objects, records))
    assert parsed.told == []
    assert parsed.defects == [None] * len(records)
    assert parsed.parser.repeated_keys == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(_RECORD, min_size=1, max_size=4),
    st.sampled_from([2**63, -(2**63) - 1, 2**64 - 1, 2**64, 10**19, 10**20, -(10**40)]),
    st.data(),
)
def test_a_number_beyond_int64_is_told_wherever_it_is(
    tmp_path: Path, records: list[Any], number: int, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(records) - 1))
    column, value = data.draw(
        st.sampled_from(
            [("id", number), ("n", [1, number]), ("n", {"deep": [{"er": number}]}), ("price", number), ("n", number)]
        )
    )
    changed = [{**record, column: value} if index == at else record for index, record in enumerate(records)]
    parsed = Parsed(tmp_path, *map(_dumps, changed))
    assert parsed.told == [(at + 1, "number_out_of_range", [column])]
    assert parsed.rows[at][column] is None
    expected = [{**record, column: None} if index == at else record for index, record in enumerate(records)]
    assert list(map(_without_empty_objects, parsed.rows)) == list(map(_without_empty_objects, expected))


def test_decimals_as_large_are_decimals(tmp_path: Path) -> None:
    parsed = Parsed(tmp_path, b'{"n": 1e19}', b'{"n": 9223372036854775808.0}', b'{"n": -1.5e300}')
    assert (parsed.rows, parsed.told) == ([{"n": 1e19}, {"n": 2.0**63}, {"n": -1.5e300}], [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_RECORD, max_size=4), st.lists(_SPACES, min_size=4, max_size=4), st.booleans(), st.booleans())
def test_a_title_given_twice_is_told_however_it_is_written(
    tmp_path: Path, records: list[Any], spaces: list[str], escaped: bool, described: bool
) -> None:
    second = b"t\\u0069tle" if escaped else b"title"
    head = b'{"title"%b:%b"Cup", "%b"%b:%b"Mug"' % (*map(str.encode, spaces[:2]), second, *map(str.encode, spaces[2:]))
    raw = head + (b', "description": "Blue."}' if described else b"}")
    parsed = Parsed(tmp_path, *map(_dumps, records), raw)
    assert parsed.told == [(len(records) + 1, "duplicate_key", ["title"])]
    assert parsed.rows[-1]["title"] == "Mug"
    assert parsed.defects == [None] * len(records) + ["duplicate_key"]


def test_a_repeated_key_that_nothing_depends_on_is_counted(tmp_path: Path) -> None:
    parsed = Parsed(tmp_path, b'{"n": 1, "n": 2}', b'{"more": {"title": 1, "title": 2}}', b'{"n": 3}')
    assert (parsed.parser.repeated_keys, parsed.told) == (1, [])
    assert [row["n"] for row in parsed.rows] == [2, None, 3]


def test_what_only_looks_like_a_key_is_a_text(tmp_path: Path) -> None:
    texts = ['":', '"title": "x"', '\\": "', '{"title":"a","title":"b"}']
    parsed = Parsed(tmp_path, *(orjson.dumps({"title": text}) for text in texts))
    assert [row["title"] for row in parsed.rows] == texts
    assert (parsed.told, parsed.parser.repeated_keys) == ([], 0)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"title": "Cup"', "bad_json"),
        (b'{"title": "\xff"}', "not_utf8"),
        (b'{"title": "\\udfff"}', "lone_surrogate"),
        (b'{"n": 1e999}', "number_out_of_range"),
        (b"[" * 5000, "too_deep"),
        (b"[1]", "not_object"),
        (b"null", "not_object"),
    ],
)
def test_what_is_no_record_is_told_and_its_neighbours_stay(tmp_path: Path, raw: bytes, reason: str) -> None:
    parsed = Parsed(tmp_path, b'{"title": "Lamp"}', raw, b'{"title": "Vase"}')
    assert [row["title"] for row in parsed.rows] == ["Lamp", "Vase"]
    assert parsed.told == [(2, reason, None)]


def test_only_the_end_of_the_input_can_be_truncated(tmp_path: Path) -> None:
    parsed = Parsed(tmp_path, b'{"title"', b'{"title"', open_end=True)
    assert parsed.told == [(1, "bad_json", None), (2, "truncated_json", None)]


def test_blank_lines_are_counted_and_nothing_else(tmp_path: Path) -> None:
    parsed = Parsed(tmp_path, b"", b" \t\r", b'{"title": "Cup"}')
    assert (len(parsed.rows), parsed.parser.blank_lines, parsed.told) == (1, 2, [])
    assert Parsed(tmp_path, b"").batch is None


@pytest.mark.parametrize("column", ["title", "description"])
@pytest.mark.parametrize("value", [7, 7.5, True, [], ["Cup"], {}, {"pt": "Cup"}])
def test_text_columns_hold_only_text(tmp_path: Path, column: str, value: Any) -> None:
    parsed = Parsed(tmp_path, *(orjson.dumps({column: each}) for each in ("Lamp", value, None)))
    assert [row[column] for row in parsed.rows] == ["Lamp", None, None]
    assert parsed.told == [(2, "bad_type", [column])]
    assert parsed.defects == [None, "bad_type", None]


@pytest.mark.parametrize("depth", [1, 30, 31])
def test_values_as_deep_as_parquet_can_hold(tmp_path: Path, depth: int) -> None:
    parsed = Parsed(tmp_path, b'{"n": ' + b"[" * depth + b"1" + b"]" * depth + b"}")
    assert parsed.told == []
    assert parsed.rows[0]["n"] is not None


@pytest.mark.parametrize("levels", [33, 100, 400, 500, 900, 1000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_a_deeper_value_is_null_and_told(tmp_path: Path, levels: int, opening: bytes, closing: bytes) -> None:
    times = -(-levels // len(closing))
    raw = b'{"title": "Cup", "n": ' + opening * times + b"1" + closing * times + b"}"
    parsed = Parsed(tmp_path, b'{"title": "Lamp"}', raw)
    assert parsed.rows[1] == {"title": "Cup", "n": None}
    assert parsed.told == [(2, "too_deep", ["n"])]


def test_an_object_without_members_is_null_where_its_column_has_none(tmp_path: Path) -> None:
    parsed = Parsed(tmp_path, b'{"a": {}, "b": {}, "c": [{}]}', b'{"b": {"n": 1}}')
    assert parsed.rows == [{"a": None, "b": {"n": None}, "c": [None]}, {"a": None, "b": {"n": 1}, "c": None}]


def test_values_that_no_column_can_hold(tmp_path: Path) -> None:
    with pytest.raises(Irreconcilable):
        Parsed(tmp_path, b'{"n": 1}', b'{"n": "one"}')


def test_keys_that_look_like_data(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="different keys") as refusal:
        Parsed(tmp_path, *(orjson.dumps({f"key {n}": 1}) for n in range(2001)))
    assert refusal.value.code == "too_many_columns"


def test_columns_have_the_types_of_their_values(tmp_path: Path) -> None:
    parsed = Parsed(tmp_path, b'{"t": "a", "i": 1, "f": 1, "n": null}', b'{"f": 0.5, "l": [{"x": [1]}]}')
    assert parsed.batch is not None
    assert parsed.batch.schema.types == [
        pa.string(),
        pa.int64(),
        pa.float64(),
        pa.null(),
        pa.list_(pa.struct([("x", pa.list_(pa.int64()))])),
        pa.string(),
    ]
