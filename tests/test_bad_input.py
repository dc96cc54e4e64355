"""What becomes of every bad input: one table, by the numbers of our list of bad inputs.

Each case makes its own small catalogue and states how the run ends, every row that comes out, and every entry
of the quarantine. A record is never lost without an entry, and the records around a bad one are what they were.
"""

import gzip
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
import zstandard

from enrich.author import Author
from enrich.errors import EnrichError
from enrich.night import run
from enrich.settings import load_settings

from .conftest import Command, Outcome, Row

Make = Callable[[Path], Path]

LAMP = {"title": "Lamp", "description": "Warm light."}
VASE = {"title": "Vase"}


@dataclass(frozen=True)
class Entry:
    """What the quarantine must say. `line` None: not asserted, because the input has no lines of its own."""

    reason: str
    raw: bytes
    line: int
    columns: tuple[str, ...] = ()
    size: int | None = None


@dataclass(frozen=True)
class Case:
    """One input and what becomes of it. `rows` None says that it is refused as a whole with `status` and `code`."""

    id: str
    make: Make
    rows: Sequence[Row] | None = None
    quarantine: Sequence[Entry] = ()
    status: int = 0
    code: str | None = None
    flags: tuple[str, ...] = ()
    said: str = ""
    caps: dict[str, int] = field(default_factory=dict)
    meanwhile: Callable[[Path], object] | None = None


# What comes out


def kept(title: str | None, description: Any, **cells: Any) -> Row:
    return {"title": title, "description": description, "enrich_status": "kept", "enrich_flags": [], **cells}


def generated(title: str, text: str, *flags: str, **cells: Any) -> Row:
    fate = {"enrich_status": "generated", "enrich_flags": list(flags)}
    return {"title": title, "description": text, **fate, **cells}


def rejected(title: str | None, description: Any, code: str, **cells: Any) -> Row:
    return {"title": title, "description": description, "enrich_status": "rejected", "enrich_flags": [code], **cells}


def pending(title: str) -> Row:
    return {"title": title, "description": None, "enrich_status": "pending", "enrich_flags": []}


BEFORE, AFTER = kept("Lamp", "Warm light."), generated("Vase", "Vase")


# What goes in


def between(
    number: str,
    middle: bytes,
    rows: Sequence[Row] = (),
    quarantine: Sequence[Entry] = (),
    *,
    name: str = "catalogue.jsonl",
    **rest: Any,
) -> Case:
    """A case of bad lines between two good ones, which must come out untouched."""
    content = b"\n".join([orjson.dumps(LAMP), middle, orjson.dumps(VASE), b""])
    return Case(number, holding(name, content), [BEFORE, *rows, AFTER], quarantine, **rest)


def lost(number: str, middle: bytes, reason: str, **rest: Any) -> Case:
    """A case of a line that is no record."""
    return between(number, middle, [], [Entry(reason, middle, 2)], **rest)


def holding(name: str, content: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def parquet(columns: dict[str, Any], **options: Any) -> Make:
    def make(folder: Path) -> Path:
        pq.write_table(pa.table(columns), folder / "catalogue.parquet", **options)
        return folder / "catalogue.parquet"

    return make


def patched(columns: dict[str, Any], old: bytes, new: bytes, *, where: slice = slice(None), **options: Any) -> Make:
    """A Parquet file in which the one place that reads `old` reads `new`."""

    def make(folder: Path) -> Path:
        path = parquet(columns, **options)(folder)
        content = path.read_bytes()
        part = content[where]
        assert part.count(old) == 1, part.count(old)
        path.write_bytes(content.replace(part, part.replace(old, new)))
        return path

    return make


def not_quite_utf8(*values: bytes | None) -> pa.Array:
    return pa.array(values, pa.binary()).view(pa.string())


def lines(*records: Any) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def refused(number: str, make: Make, code: str | None, status: int = 65, **rest: Any) -> Case:
    return Case(number, make, None, (), status, code, **rest)


def nested(depth: int) -> bytes:
    return b'{"title": "Deep", "more": ' + b"[" * depth + b"]" * depth + b"}"


BIG = b"9" * 30
NUMBERS = [
    between(
        f"{number} {name}",
        b'{"title": "Cup", "id": %b}' % digits,
        [generated("Cup", "Cup", id=None)],
        [Entry("number_out_of_range", b'{"title": "Cup", "id": %b}' % digits, 2, ("id",))],
    )
    for number, name, digits in [
        ("15", "integer of 30 digits", BIG),
        ("16", "integer of 5000 digits", b"7" * 5000),
        ("17", "integer of 64 bits", b"18446744073709551615"),
        ("17", "integer just above int64", b"9223372036854775808"),
        ("17", "integer just below int64", b"-9223372036854775809"),
    ]
]

WRONG_TITLES = [
    case
    for name, value in [("number", b"7"), ("list", b'["Cup"]'), ("object", b'{"pt": "Cup"}'), ("boolean", b"true")]
    for case in (
        between(
            f"31 title is a {name}, no description",
            b'{"title": %b}' % value,
            [rejected(None, None, "bad_type")],
            [Entry("bad_type", b'{"title": %b}' % value, 2, ("title",))],
        ),
        between(
            f"31 title is a {name}, described",
            b'{"title": %b, "description": "As it was."}' % value,
            [kept(None, "As it was.")],
            [Entry("bad_type", b'{"title": %b, "description": "As it was."}' % value, 2, ("title",))],
        ),
    )
]

CONTROL_TOKENS = ["</s>", "[/INST]", "[INST]", "<|im_end|>", "<tool_call>", "<think>", "<unk>", "<<SYS>>"]


def truncated(make: Make, by: int) -> Make:
    def make_less(folder: Path) -> Path:
        path = make(folder)
        path.write_bytes(path.read_bytes()[:-by])
        return path

    return make_less


def encrypted(*, plaintext_footer: bool) -> Make:
    class Kms(pe.KmsClient):  # type: ignore[misc]
        def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
            return key_bytes

        def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
            return wrapped_key

    def make(folder: Path) -> Path:
        path = folder / "catalogue.parquet"
        table = pa.table({"title": ["Cup", "Bowl"], "description": [None, "Deep."]})
        config = pe.EncryptionConfiguration("k", column_keys={"c": ["title"]}, plaintext_footer=plaintext_footer)
        properties = pe.CryptoFactory(lambda _: Kms()).file_encryption_properties(pe.KmsConnectionConfig(), config)
        with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
            writer.write_table(table)
        return path

    return make


def flipped_page(folder: Path) -> Path:
    path = parquet(
        {"title": ["Cup", "Bowl"], "description": [None, "Deep."]},
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )(folder)
    content = bytearray(path.read_bytes())
    content[content.index(b"Bowl")] ^= 1
    path.write_bytes(content)
    return path


def like_our_output(folder: Path) -> Path:
    path = folder / "catalogue.parquet"
    pq.write_table(pa.table({"title": ["Cup"], "enrich_status": ["kept"]}), path)
    return path


def two_names(folder: Path) -> Path:
    (folder / "shop").mkdir()
    path = holding("a.jsonl", lines(LAMP))(folder / "shop")
    (folder / "shop" / "b.jsonl").symlink_to(path)
    return folder / "shop"


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "catalogue.jsonl")
    return folder / "catalogue.jsonl"


def listening(folder: Path) -> Path:
    path = folder / "s.jsonl"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))
    return path


def empty_folder(folder: Path) -> Path:
    (folder / "catalogue.jsonl").mkdir()
    return folder / "catalogue.jsonl"


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(lines({"title": "Late"}))


def change_in_place(path: Path) -> None:
    """Same size, same times: only the content tells."""
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"Warm", b"Cold"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


TWO = {"title": ["Lamp", "Vase"], "description": ["Warm light.", None]}
TWO_RECORDS = lines(LAMP, VASE)
WIDE = {"title": pa.array(["Lamp", "Cup", "Vase"]), "description": pa.array(["Warm light.", None, None])}
PLAIN = {"compression": "none", "use_dictionary": False, "write_statistics": False, "store_schema": False}

CASES = [
    Case(
        "01 last line truncated",
        holding("catalogue.jsonl", TWO_RECORDS + b'{"title": "Cu'),
        [BEFORE, AFTER],
        [Entry("truncated_json", b'{"title": "Cu', 3)],
    ),
    Case(
        "02 last line without newline",
        holding("catalogue.jsonl", TWO_RECORDS + b'{"title": "Cup"}'),
        [BEFORE, AFTER, generated("Cup", "Cup")],
    ),
    between("03 blank lines", b"\n \t\n\r\n   ", said="5 blank lines skipped"),
    Case(
        "04 CRLF",
        holding("catalogue.jsonl", TWO_RECORDS.replace(b"\n", b"\r\n")),
        [BEFORE, AFTER],
    ),
    between("05 lone CR between members", b'{"title": "Cup",\r"n": 1}', [generated("Cup", "Cup", n=1)]),
    lost("05 lone CR inside a text", b'{"title": "Cu\rp"}', "bad_json"),
    between(
        "06 U+2028 and U+0085 in a text",
        '{"title": "Cup\u2028\u0085Two", "description": "One\u2028line\u0085here."}'.encode(),
        [kept("Cup\u2028\u0085Two", "One\u2028line\u0085here.")],
    ),
    between(
        "06 U+2028 and U+0085 in a title to describe",
        '{"title": "Cup\u2028Two\u0085Three"}'.encode(),
        [generated("Cup\u2028Two\u0085Three", "Cup Two Three")],
    ),
    Case("07 byte order mark", holding("c.jsonl", b"\xef\xbb\xbf" + TWO_RECORDS), [BEFORE, AFTER]),
    Case("07 byte order mark before an array", holding("c.json", b"\xef\xbb\xbf[]"), []),
    lost("07 byte order mark inside the file", b'\xef\xbb\xbf{"title": "Cup"}', "bad_json"),
    *(
        refused(f"08 {encoding}", holding("catalogue.jsonl", TWO_RECORDS.decode().encode(encoding)), "not_utf8")
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
    ),
    lost("09 invalid UTF-8", b'{"title": "Caf\xe9"}', "not_utf8"),
    lost("09 invalid UTF-8 in a described row", b'{"title": "Cup", "description": "\xff"}', "not_utf8"),
    lost("10 overlong UTF-8", b'{"title": "\xc0\xaf"}', "not_utf8"),
    lost("10 encoded surrogate", b'{"title": "\xed\xa0\x80"}', "not_utf8"),
    lost("11 lone surrogate escape", rb'{"title": "Cup \ud800"}', "lone_surrogate"),
    lost("11 lone low surrogate in a key", rb'{"title": "Cup", "\udc00": 1}', "lone_surrogate"),
    between("11 a whole pair is a letter", rb'{"title": "Cup \ud83d\ude00"}', [generated("Cup 😀", "Cup 😀")]),
    between("12 NUL in a title", rb'{"title": "Cu\u0000p"}', [generated("Cu\0p", "Cup")]),
    lost("12 raw NUL in a title", b'{"title": "Cu\x00p"}', "bad_json"),
    lost("13 NaN", b'{"title": "Cup", "price": NaN}', "bad_json"),
    lost("13 Infinity", b'{"title": "Cup", "price": -Infinity}', "bad_json"),
    lost("14 number beyond a double", b'{"title": "Cup", "price": 1e400}', "number_out_of_range"),
    *NUMBERS,
    between(
        "15 integer of 30 digits in a described row",
        b'{"title": "Cup", "description": "Blue.", "id": %b, "more": {"n": [1, %b]}}' % (BIG, BIG),
        [kept("Cup", "Blue.", id=None, more=None)],
        [
            Entry(
                "number_out_of_range",
                b'{"title": "Cup", "description": "Blue.", "id": %b, "more": {"n": [1, %b]}}' % (BIG, BIG),
                2,
                ("id", "more"),
            )
        ],
    ),
    between("15 a text of 30 digits", b'{"title": "Cup", "id": "%b"}' % BIG, [generated("Cup", "Cup", id="9" * 30)]),
    between(
        "17 the ends of int64",
        b'{"title": "Cup", "id": 9223372036854775807}\n{"title": "Mug", "id": -9223372036854775808}',
        [generated("Cup", "Cup", id=2**63 - 1), generated("Mug", "Mug", id=-(2**63))],
    ),
    between(
        "18 title twice",
        b'{"title": "Cup", "title": "Mug"}',
        [rejected("Mug", None, "duplicate_key")],
        [Entry("duplicate_key", b'{"title": "Cup", "title": "Mug"}', 2, ("title",))],
    ),
    between(
        "18 title twice, spaced, escaped, described",
        b'{"title" : "Cup", "t\\u0069tle"\t: "Mug", "description": "Blue."}',
        [kept("Mug", "Blue.")],
        [
            Entry(
                "duplicate_key",
                b'{"title" : "Cup", "t\\u0069tle"\t: "Mug", "description": "Blue."}',
                2,
                ("title",),
            )
        ],
    ),
    between(
        "18 title twice where a space hides it",
        b'{"title": "Cup", "title" : "Mug"}',
        [rejected("Mug", None, "duplicate_key")],
        [Entry("duplicate_key", b'{"title": "Cup", "title" : "Mug"}', 2, ("title",))],
    ),
    between(
        "18 description twice",
        b'{"title": "Cup", "description": "Blue.", "description": null}',
        [rejected("Cup", None, "duplicate_key")],
        [Entry("duplicate_key", b'{"title": "Cup", "description": "Blue.", "description": null}', 2, ("description",))],
    ),
    between(
        "18 a key we do not use twice",
        b'{"title": "Cup", "n": 1, "n": 2}',
        [generated("Cup", "Cup", n=2)],
        said="1 records repeat a key",
    ),
    between(
        "18 an attribute twice",
        b'{"title": "Cup", "n": 1, "n": 2}',
        [rejected("Cup", None, "duplicate_key", n=2)],
        [Entry("duplicate_key", b'{"title": "Cup", "n": 1, "n": 2}', 2, ("n",))],
        flags=("--attributes", "n"),
    ),
    lost("19 nesting of 5000", nested(5000), "too_deep"),
    lost("19 nesting of 100000", nested(100_000), "too_deep"),
    lost("19 nesting that never closes", b"[" * 100_000, "too_deep"),
    between(
        "19 nesting deeper than Parquet can hold",
        nested(200),
        [generated("Deep", "Deep", more=None)],
        [Entry("too_deep", nested(200), 2, ("more",))],
    ),
    refused("19 nesting of 100000 that never closes in an array", holding("c.json", b"[" * 100_000), "bad_json"),
    *(
        lost(f"20 {name}", middle, "not_object")
        for name, middle in [
            ("list", b'["Cup"]'),
            ("number", b"7"),
            ("null", b"null"),
            ("text", b'"Cup"'),
            ("boolean", b"false"),
        ]
    ),
    *(
        lost(f"21 {name}", middle, "bad_json")
        for name, middle in [
            ("trailing comma", b'{"title": "Cup",}'),
            ("comment", b'{"title": "Cup"} // blue'),
            ("single quotes", b"{'title': 'Cup'}"),
            ("bare key", b'{title: "Cup"}'),
        ]
    ),
    lost("22 two objects on a line", b'{"title": "Cup"}{"title": "Mug"}', "bad_json"),
    lost("22 two objects and a comma on a line", b'{"title": "Cup"}, {"title": "Mug"}', "bad_json"),
    between(
        "23 over-long line",
        b'{"title": "%b"}' % (b"x" * 20_000),
        [],
        [Entry("too_large", (b'{"title": "%b' % (b"x" * 20_000))[:4096], 2, size=20_013)],
        caps={"json_stream.BLOCK_BYTES": 512, "json_stream.MAX_RECORD_BYTES": 8192},
    ),
    Case(
        "23 over-long last line",
        holding("catalogue.jsonl", TWO_RECORDS + b"x" * 20_000),
        [BEFORE, AFTER],
        [Entry("too_large", b"x" * 4096, 3, size=20_000)],
        caps={"json_stream.BLOCK_BYTES": 512, "json_stream.MAX_RECORD_BYTES": 8192},
    ),
    between(
        "23 over-long line of real size",
        b'{"title": "%b"}' % (b"x" * (33 << 20)),
        [],
        [Entry("too_large", (b'{"title": "%b' % (b"x" * 4096))[:4096], 2, size=(33 << 20) + 13)],
    ),
    Case(
        "23 over-long item of an array",
        holding("c.json", b'[{"title": "Lamp", "description": "Warm light."},\n{"t": [%b]},\n{"title": "Vase"}]' % (b'"x",' * 5000 + b"0")),
        [BEFORE, AFTER],
        [Entry("too_large", (b'{"t": [' + b'"x",' * 5000)[:4096], 2, size=20_010)],
        caps={"json_stream.BLOCK_BYTES": 512, "json_stream.MAX_RECORD_BYTES": 8192},
    ),
    refused(
        "23 one text of an array item beyond every limit",
        holding("c.json", b'[{"title": "%b"}]' % (b"x" * 40_000)),
        "bad_json",
        caps={"json_stream.BLOCK_BYTES": 512, "json_stream.MAX_RECORD_BYTES": 8192},
    ),
    Case("24 empty file", holding("catalogue.jsonl", b""), []),
    Case("24 empty .json", holding("catalogue.json", b""), []),
    Case("24 only white space", holding("catalogue.jsonl", b"\n \n"), []),
    Case("24 only a byte order mark", holding("catalogue.jsonl", b"\xef\xbb\xbf"), []),
    Case("25 only []", holding("catalogue.json", b" [ ]\n"), []),
    *(
        refused(f"26 array truncated {name}", holding("c.json", content), "bad_json")
        for name, content in [
            ("in an item", b'[{"title": "Cup"}, {"ti'),
            ("after an item", b'[{"title": "Cup"}'),
            ("after a comma", b'[{"title": "Cup"},'),
            ("at its start", b"["),
        ]
    ),
    Case(
        "27 array named .jsonl",
        holding("catalogue.jsonl", orjson.dumps([LAMP, VASE], option=orjson.OPT_INDENT_2)),
        [BEFORE, AFTER],
    ),
    Case("27 array on one line named .jsonl", holding("c.jsonl", orjson.dumps([LAMP, VASE]) + b"\n"), [BEFORE, AFTER]),
    Case("27 JSON lines named .json", holding("catalogue.json", TWO_RECORDS), [BEFORE, AFTER]),
    Case("27 Parquet named .json", lambda folder: parquet(TWO)(folder).rename(folder / "c.json"), [BEFORE, AFTER]),
    refused("28 garbage after the array", holding("c.json", b'[{"title": "Cup"}] x'), "bad_json"),
    refused("28 another array after the array", holding("c.json", b'[{"title": "Cup"}]\n[]'), "bad_json"),
    between("29 no title", b'{"n": 1}', [rejected(None, None, "no_title", n=1)]),
    between("29 no title, described", b'{"description": "Blue."}', [kept(None, "Blue.")]),
    *(
        between(f"30 title {name}", b'{"title": %b}' % value, [rejected(orjson.loads(value), None, "no_title")])
        for name, value in [
            ("null", b"null"),
            ("empty", b'""'),
            ("blank", b'"  \\t "'),
            ("of no-break spaces", '"\u00a0\u2003"'.encode()),
        ]
    ),
    between("30 title empty, described", b'{"title": "", "description": "Blue."}', [kept("", "Blue.")]),
    *WRONG_TITLES,
    *(
        between(
            f"32 description {name}", b'{"title": "Cup", "description": %b}' % value, [generated("Cup", "Cup")]
        )
        for name, value in [
            ("null", b"null"),
            ("empty", b'""'),
            ("blank", b'" \\n "'),
            ("of no-break spaces", '"\u00a0\u3000"'.encode()),
        ]
    ),
    *(
        between(
            f"32 description {text}",
            b'{"title": "Cup", "description": "%b"}' % text.encode(),
            [kept("Cup", text)],
            said="1 kept descriptions read like N/A",
        )
        for text in ("N/A", "null", "NaN", " none ")
    ),
    *(
        between(
            f"33 description is a {name}",
            b'{"title": "Cup", "description": %b}' % value,
            [rejected("Cup", None, "bad_type")],
            [Entry("bad_type", b'{"title": "Cup", "description": %b}' % value, 2, ("description",))],
        )
        for name, value in [("number", b"7.5"), ("list", b"[]"), ("object", b'{"en": "Blue."}')]
    ),
    between(
        "34 fields we do not know",
        '{"title": "Cup", "açúcar": {"a": [1, null, {"b": "c"}]}, "": true}'.encode(),
        [generated("Cup", "Cup", **{"açúcar": {"a": [1, None, {"b": "c"}]}, "": True})],
        status=65,
    ),
    refused("35 key in another case", holding("c.jsonl", lines({"Title": "Cup"})), None, 78, said="is Title the title"),
    Case("36 no id", holding("c.jsonl", lines({"title": "Cup"}, {"title": "Cup"})), [generated("Cup", "Cup")] * 2),
    between(
        "37 the same id twice",
        lines({"title": "Cup", "id": "7"}, {"title": "Mug", "id": "7"}).strip(),
        [generated("Cup", "Cup", id="7"), generated("Mug", "Mug", id="7")],
        flags=("--id", "id"),
    ),
    between("38 id with leading zeros", b'{"title": "Cup", "id": "00123"}', [generated("Cup", "Cup", id="00123")]),
]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, int]], None]:
    def limit(caps: dict[str, int]) -> None:
        for name, value in caps.items():
            monkeypatch.setattr(f"enrich.catalog.{name}", value)

    return limit


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_bad_input(case: Case, tmp_path: Path, enrich: Command, enrich_run: Command, limited: Any) -> None:
    limited(case.caps)
    path = case.make(tmp_path)
    outcome = enrich_run(path, *case.flags, output=tmp_path / "out" / "enriched.parquet")
    assert case.said in outcome.said + outcome.printed
    assert outcome.status == case.status, outcome.said
    if case.rows is None:
        return
    print(outcome.rows, outcome.quarantine)
    assert len(outcome.rows) == len(case.rows)
    assert [{n: r[n] for n in e} for r, e in zip(outcome.rows, case.rows)] == list(case.rows)
    print(outcome.quarantine)
