"""What comes out of a catalogue acts on nothing: not on a spreadsheet, not on a log, not on a terminal."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enrich.engine.protocol import Completion, Request
from enrich.products import Product
from enrich.quality.judge import Judge
from enrich.settings import QualitySettings
from enrich.text import clean

from ..conftest import Command, Outcome
from ..runs import PUBLISH_ALL, InPlaceOfEcho, Row, enrich, output_of, read_rows, said_in, write_catalogue
from .code import imported, importing, mentioning

# --- spreadsheets --------------------------------------------------------------------------------------------------


def test_no_csv_is_ever_written() -> None:
    """Formulas act where a CSV file is opened in a spreadsheet. Whoever adds one must prefix them in it, and in it
    alone."""
    assert importing({"csv", "pandas", "openpyxl", "xlsxwriter", "pyarrow.csv"}, imported()) == {}
    assert mentioning(r"\.csv\b|to_csv|write_csv|CSVWriter") == []
    assert "enrich/catalog/publish.py" in mentioning(r"write_table\b|\bParquetWriter\b")


FORMULAS = [
    f"{before}cmd|' /C calc'!A0"
    for before in ("=", "+", "-", "@", "\t=", "\r=", "\n=", " =", "＝", "＋", "－", "＠", '"=', "'=", "%0A=", "|")
]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_formulas_come_out_as_they_went_in(tmp_path: Path, suffix: str) -> None:
    rows: list[Row] = [{"title": f"{each} Mug", "description": None} for each in FORMULAS]
    rows += [{"title": "Mug", "description": each} for each in FORMULAS]
    catalogue = write_catalogue(tmp_path / f"catalogue{suffix}", rows)
    assert enrich(catalogue, quality=PUBLISH_ALL).status == 0
    found = read_rows(output_of(catalogue))
    assert [row["title"] for row in found] == [row["title"] for row in rows]
    assert [row["description"] for row in found[len(FORMULAS) :]] == FORMULAS
    # Echo says the cleaned title, in which white space is single.
    said = [row["description"] for row in found[: len(FORMULAS)]]
    assert said == [" ".join(row["title"].split()) for row in rows[: len(FORMULAS)]]


# --- logs and errors -----------------------------------------------------------------------------------------------

# A line break of every kind, ANSI in 7 and in 8 bits, a bell, text that turns around, what cannot be seen, a tag.
ACTING = "\n\r\x0b\x0c\x1c\x85\u2028\u2029\x1b[31m\x1b]0;x\x07\x9b2J\x7f\u202e\u2066\u200f\u200b\ufeff\U000e0041"
FORGED = f"x{ACTING}\nenrich: all is well\n2026-01-01 00:00:00 INFO all is well\n{{}}"


def assert_harmless(outcome: Outcome, log: str) -> None:
    """Every line is one that the tool wrote, and every character of it can be seen."""
    lines = [line for line in (outcome.said + outcome.printed).split("\n") if line]
    assert lines
    assert [line for line in lines if not line.isprintable()] == []
    assert not [line for line in lines if line.startswith(("enrich: all is well", "2026-01-01", "{}"))]
    for line in outcome.said.split("\n"):
        if log == "json" and line and not line.startswith("enrich: "):
            assert json.loads(line)["level"] in ("INFO", "WARNING", "ERROR")


def hostile_rows() -> list[Row]:
    """Titles, ids and attributes that act, a placeholder that nobody listed, and a title that is none."""
    named = {f"id{FORGED}": FORGED, f"colour{FORGED}": f"red{FORGED}"}
    rows: list[Row] = [{"title": f"Mug {number} {FORGED}", "description": None, **named} for number in range(4)]
    return [
        *rows,
        {"title": "Cup", "description": "n/a", **named},
        {"title": "\x1b\u202e\x07", "description": None, **named},
    ]


def write_lines(path: Path) -> Path:
    """The rows as JSON lines, some of which are blank, repeat a key, or are no records."""
    lines = [json.dumps(row) for row in hostile_rows()]
    path.write_text("\n".join([*lines, "", '{"title": "Cup", "x": 1, "x": 2}', f"{{{ACTING!r}", "[]", ""]))
    return path


CHOSEN = ("--id", f"id{FORGED}", "--attributes", f"colour{FORGED}")


@pytest.mark.parametrize("log", ["text", "json"])
def test_names_and_titles_of_a_catalogue_forge_no_line(tmp_path: Path, enrich_run: Command, log: str) -> None:
    # A file name holds neither a slash nor more than 255 bytes.
    folder = tmp_path / f"shop{ACTING}"
    folder.mkdir()
    outcome = enrich_run(write_lines(folder / f"x{ACTING}.jsonl"), *CHOSEN, "--log", log)
    assert outcome.status == 0, outcome.said
    assert_harmless(outcome, log)
    assert "repeat a key" in outcome.said
    assert "\\x1b[31m" in outcome.said or "\\\\u001b[31m" in outcome.said or "\\u001b[31m" in outcome.said


@pytest.mark.parametrize("log", ["text", "json"])
def test_names_in_a_folder_forge_no_line(tmp_path: Path, enrich_run: Command, log: str) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    write_lines(folder / f"a{ACTING}.jsonl")
    (folder / f"b{ACTING}.jsonl").write_text("[")
    (folder / f"c{ACTING}.txt").write_text("no catalogue by its name")
    outcome = enrich_run(folder, *CHOSEN, "--log", log, output=tmp_path / "out")
    assert outcome.status == 65
    assert_harmless(outcome, log)
    for told in ("not a catalogue by its name", "not valid JSON"):
        assert told in outcome.said


def test_without_the_escaping_lines_would_be_forged(
    tmp_path: Path, enrich_run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("console", "night"):
        monkeypatch.setattr(f"enrich.{module}.printable", lambda text: text)
    with pytest.raises(AssertionError):
        assert_harmless(enrich_run(write_lines(tmp_path / f"x{ACTING}.jsonl"), *CHOSEN), "text")


def two_types(folder: Path) -> Path:
    path = folder / "types.jsonl"
    path.write_text("".join(json.dumps({"title": "Cup", FORGED: value}) + "\n" for value in (1, "one")))
    return path


def duplicate_names(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table([["Cup"], ["Mug"]], [FORGED, FORGED]), folder / "twice.parquet")
    return folder / "twice.parquet"


def plain(folder: Path) -> Path:
    return write_catalogue(folder / "plain.parquet", hostile_rows())


def settings_file(folder: Path) -> Path:
    path = folder / f"x{ACTING}.toml"
    path.write_text(f"[text]\n{json.dumps(FORGED)} = 1\n[adapters.values]\n{json.dumps(FORGED)} = 'x'\n")
    return path


FAILING: list[tuple[str, int, Any]] = [
    ("a column that is not there", 78, lambda at: ["run", plain(at), "--title", FORGED]),
    ("an attribute that is not there", 78, lambda at: ["run", plain(at), "--attributes", FORGED]),
    ("a priority that is not there", 78, lambda at: ["run", plain(at), "--priority", FORGED]),
    ("a column of two types", 65, lambda at: ["run", two_types(at)]),
    ("two columns of one name", 65, lambda at: ["run", duplicate_names(at)]),
    ("records that are not there", 65, lambda at: ["run", two_types(at), "--records", FORGED]),
    ("a settings file", 78, lambda at: ["run", plain(at), "--config", settings_file(at)]),
    ("a base", 69, lambda at: ["run", plain(at), "--base", FORGED]),
    ("an adapter", 69, lambda at: ["run", plain(at), "--adapter", FORGED]),
    ("a flag", 64, lambda at: ["run", plain(at), f"--{FORGED}"]),
    ("a value of a flag", 64, lambda at: ["run", plain(at), "--max-rows", FORGED]),
    ("an address", 64, lambda _: ["run", f"evil://{FORGED}/x.jsonl"]),
    ("an input", 66, lambda _: ["run", f"x{ACTING}"]),
    ("an output", 66, lambda _: ["status", f"x{ACTING}"]),
    ("a column to compare by", 78, lambda at: ["diff", plain(at), plain(at), "--id", FORGED]),
    ("a title", 64, lambda _: ["describe", "\x1b\u202e!?\n\x9b", "--engine", "echo"]),
    ("a file of reviews", 66, lambda _: ["review", f"x{ACTING}"]),
    ("a run", 66, lambda at: ["rollback", FORGED, "--state", at / f"x{ACTING}"]),
]


@pytest.mark.parametrize(("status", "arguments"), [each[1:] for each in FAILING], ids=[each[0] for each in FAILING])
def test_an_error_is_one_harmless_line(tmp_path: Path, enrich: Command, status: int, arguments: Any) -> None:
    named = arguments(tmp_path)
    wants_model = {"--base", "--adapter"} & set(map(str, named))
    engine = ["--engine", "echo"] if named[0] == "run" and not wants_model else []
    outcome = enrich(*named, *engine)
    assert outcome.status == status, outcome.said
    assert_harmless(outcome, "text")
    assert outcome.error


# --- files that a person reads -------------------------------------------------------------------------------------


def held_lines(folder: Path, command: Command) -> list[str]:
    """Of rows whose columns have names that act, all of them held."""
    catalogue = write_catalogue(folder / "catalogue.parquet", hostile_rows())
    (folder / "enrich.toml").write_text("[quality]\nmin_chars = 99999\nretries = 0\n")
    flags = ["--engine", "echo", "--config", folder / "enrich.toml", *CHOSEN]
    assert command("run", catalogue, *flags).status == 0
    assert command("held", output_of(catalogue), "--out", folder / "held.jsonl", *flags).status == 0
    return (folder / "held.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")


def quarantine_lines(folder: Path, command: Command) -> list[str]:
    """Of a file whose name acts, with a record that is none, and a cell that fits into no column."""
    catalogue = folder / f"x{ACTING}.jsonl"
    catalogue.write_text(json.dumps({"title": "Cup", f"n{FORGED}": 10**30}) + "\n[]\n")
    assert command("run", catalogue, "--engine", "echo", "--output", folder / "out.parquet").status == 0
    content = (folder / "out.parquet.quarantine.jsonl").read_text(encoding="utf-8")
    return content.removesuffix("\n").split("\n")


def test_a_held_product_is_one_line_of_json(tmp_path: Path, enrich: Command) -> None:
    lines = held_lines(tmp_path, enrich)
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 4
    assert all(row["id"] == FORGED and FORGED.split("\n")[-1] in next(iter(row["attributes"])) for row in rows)
    assert not [line for line in lines if any(each < " " for each in line)]
    # What it is to be judged by holds nothing that acts: title and text are cleaned.
    assert all(row["title"].isprintable() for row in rows)
    assert all(line.isprintable() for row in rows for line in row["text"].split("\n"))


def test_a_record_in_quarantine_is_one_line_of_json(tmp_path: Path, enrich: Command) -> None:
    lines = quarantine_lines(tmp_path, enrich)
    assert [json.loads(line)["file"] for line in lines] == [f"x{ACTING}.jsonl"] * 2
    assert [json.loads(line).get("columns") for line in lines] == [None, [f"n{FORGED}"]]
    assert not [line for line in lines if any(each < " " for each in line)]


@pytest.mark.parametrize("lines_of", [held_lines, quarantine_lines])
def test_no_line_for_people_holds_what_acts(tmp_path: Path, enrich: Command, lines_of: Any) -> None:
    assert [line for line in lines_of(tmp_path, enrich) if not line.isprintable()] == []


# --- what a model says ---------------------------------------------------------------------------------------------

GOOD = "A quiet desk fan for warm days, easy to carry and simple to clean."
SAID = {
    f"{GOOD} See http://evil.example/pay": "url",
    f"{GOOD} Write to me@evil.example": "email",
    f"{GOOD} Call (11) 4002-8922": "phone",
    f"{GOOD} <script>alert(1)</script>": "html",
    f"{GOOD} <img src=x onerror=alert(1)>": "html",
    f"{GOOD} &lt;script&gt;": "html",
    f"[INST] {GOOD} [/INST] {GOOD}": "prompt_leftover",
    f"{GOOD}\nAssistant: {GOOD.lower()}": "prompt_leftover",
    f"Gere uma descrição para o seguinte produto. {GOOD}": "instruction_echoed",
    f"{GOOD} Only $19.99": "price",
}
TIDIED = f"{GOOD[:-1]}\x07\x1b\x7f\x85\x9b\u2028\u202e\u2066\u200f\u200b\ufeff today."


class Saying(InPlaceOfEcho):
    """Says what it was told to, whatever it is asked: to the first product the first text, and so on."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            text = self._texts[int(said_in(request).rsplit(" ", 1)[1])]
            yield Completion(request.key, tuple(text.encode()), "eos")


@pytest.fixture
def said(tmp_path: Path, enrich: Command, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """A run in which a model says all of it, and is judged as a model is."""
    texts = [GOOD, *SAID, TIDIED, GOOD]
    monkeypatch.setattr("enrich.writer.EchoGenerator", Saying(texts))
    monkeypatch.setattr("enrich.author.Judge", lambda quality, instruction, **_: Judge(quality, instruction))
    rows: list[Row] = [{"title": f"Desk Fan {number}", "description": None} for number in range(len(texts))]
    catalogue = write_catalogue(tmp_path / "catalogue.jsonl", rows)
    (tmp_path / "enrich.toml").write_text("[quality]\nretries = 0\n")
    output = tmp_path / "out.parquet"
    flags = ("--engine", "echo", "--config", tmp_path / "enrich.toml", "--output", output)
    return enrich("run", catalogue, *flags, output=output)


def test_what_a_model_may_not_say_is_held_and_its_neighbours_are_published(said: Outcome) -> None:
    rows = said.rows
    assert [row["description"] for row in (rows[0], rows[-1])] == [GOOD, GOOD]
    for row, code in zip(rows[1:-2], SAID.values(), strict=True):
        assert code in row["enrich_flags"], row
        assert (row["enrich_status"], row["description"]) == ("held", None), row


def test_what_would_act_in_a_text_is_neither_published_nor_shown(said: Outcome) -> None:
    assert_harmless(said, "text")
    published = [row["description"] for row in said.rows if row["description"]]
    assert published[0] == published[2] == GOOD
    assert "".join(published[1].split()) == "".join(f"{GOOD[:-1]} today.".split())
    assert acting(published[1]) == ""


def acting(text: str) -> str:
    """The characters of a text that act, or that nobody can see."""
    return "".join(each for each in text if each != "\n" and clean(f"a{each}b") == "ab" and each not in " <>&")


def test_no_character_that_is_taken_out_of_a_title_is_published_in_a_text() -> None:
    hidden = "\u00ad\u034f\u061c\u115f\u17b4\u180e\u3164\uffa0\ufff9\U000e0001\U000e0041\U000e007f"
    assert acting(hidden) == hidden
    verdict = Judge(QualitySettings()).judge(f"{GOOD[:-1]}{hidden} today.", "eos", Product("Desk Fan"))
    assert verdict.action != "publish" or acting(verdict.text or "") == ""
