"""The door for people: held rows come out worst first, decisions go in, and they win over every model."""

import json
from pathlib import Path
from typing import Any

import pytest

from enrich.cli import main
from enrich.errors import CatalogueError, NoInput, UsageError
from enrich.held import write_held
from enrich.memory import Memory
from enrich.review import Reviewed, decide, review
from enrich.settings import load_settings
from enrich.state import State

from .runs import column, enrich, output_of, write_catalogue

SECTIONS: dict[str, Any] = {
    "machine": {"engine": "echo"},
    "catalogue": {"id": "id", "attributes": ["colour"]},
    "text": {"template": "{title} {attributes}"},
    "quality": {"forbidden": {"*": ["black"], "Lamps": ["bright"]}, "min_chars": 8, "retries": 0},
}
ROWS = [
    {"id": "a", "title": "Black Mug", "colour": "Night", "description": None},
    {"id": "b", "title": "Red Mug", "colour": "Red", "description": None},
    {"id": "c", "title": "Black", "colour": None, "description": None},
    {"id": "d", "title": "Black Mug", "colour": "Night", "description": None},
    {"id": "e", "title": "Green Lamp", "colour": "Green", "description": "A lamp."},
    {"id": "f", "title": "Black Lamp\u2028\x1b[2J", "colour": "Night", "description": None},
]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    catalogue = write_catalogue(tmp_path / "catalog.parquet", ROWS)
    enrich(catalogue, **SECTIONS)
    return output_of(catalogue)


def held(output: Path) -> list[dict[str, Any]]:
    file = output.with_name("held.jsonl")
    count = write_held(output, file, load_settings(None, SECTIONS))
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == count
    return rows


def fill_in(output: Path, decisions: dict[str, tuple[str, str | None]]) -> Path:
    """Decisions by title, with another text where there is one."""
    file = output.with_name("held.jsonl")
    rows = held(output)
    for row in rows:
        if row["title"] in decisions:
            row["decision"], text = decisions[row["title"]]
            row["text"] = row["text"] if text is None else text
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def take(output: Path, file: Path) -> Reviewed:
    return review(file, State(output.parent / ".enrich"))


def test_a_file_that_is_not_there_leaves_no_state(tmp_path: Path) -> None:
    with pytest.raises(NoInput, match="no such file"):
        review(tmp_path / "held.jsonl", State(tmp_path / ".enrich"))
    assert list(tmp_path.iterdir()) == []


def test_held_rows_come_worst_first_each_product_once(output: Path) -> None:
    rows = held(output)
    assert [(row["id"], row["row"], row["score"]) for row in rows] == [("c", 2, 0), ("a", 0, 30), ("f", 5, 30)]
    assert rows[1]["attributes"] == {"colour": "Night"}
    assert rows[1]["text"] == "Black Mug colour: Night"
    assert [row["flags"] for row in rows] == [
        ["too_short", "forbidden_claim"],
        ["forbidden_claim"],
        ["forbidden_claim"],
    ]
    assert {row["decision"] for row in rows} == {None}


def test_decisions_are_published_and_win_over_every_model(output: Path) -> None:
    catalogue = output.with_name("catalog.parquet")
    file = fill_in(output, {"Black Mug": ("approve", None), "Black": ("edit", "A fine black thing.")})
    assert take(output, file) == Reviewed(1, 1, 0, 1)
    enrich(catalogue, **SECTIONS)
    texts, statuses = column(output, "description"), column(output, "enrich_status")
    assert statuses == ["approved", "generated", "approved", "approved", "kept", "held"]
    assert (texts[0], texts[2]) == ("Black Mug colour: Night", "A fine black thing.")
    assert [row["id"] for row in held(output)] == ["f"]
    # Another template is another model as far as keys go: what people decided stays.
    enrich(catalogue, **{**SECTIONS, "text": {"template": "Describe {title}:"}})
    assert column(output, "enrich_status")[:4] == ["approved", "generated", "approved", "approved"]
    assert column(output, "description")[2] == "A fine black thing."


def test_a_discarded_text_stays_held_and_is_not_tried_again(output: Path) -> None:
    catalogue = output.with_name("catalog.parquet")
    take(output, fill_in(output, {"Black Mug": ("discard", None)}))
    report = enrich(catalogue, retry="held", **SECTIONS)
    assert column(output, "enrich_flags")[0] == ["discarded"]
    assert column(output, "enrich_status")[0] == "held"
    # Of the two others one more attempt each.
    assert report.summaries[0].written == 2
    assert [row["id"] for row in held(output)] == ["c", "f"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("{", CatalogueError),
        ("[]", CatalogueError),
        ('{"product": "zz", "text": "x"}', CatalogueError),
        ('{"product": "%s", "text": 1}' % ("0" * 32), CatalogueError),
        ('{"product": "%s", "text": "x", "decision": "maybe"}' % ("0" * 32), UsageError),
        ('{"product": "%s", "text": " ", "decision": "approve"}' % ("0" * 32), UsageError),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_taken(output: Path, line: str, error: type[Exception]) -> None:
    file = fill_in(output, {"Black Mug": ("approve", None)})
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(error, match="line 4"):
        take(output, file)
    with Memory.open(output.parent / ".enrich" / "memory.sqlite") as memory:
        assert memory.stats().reviews == 0
    with pytest.raises(NoInput):
        take(output, output.with_name("nothing.jsonl"))


def test_a_person_is_shown_each_row_and_the_file_keeps_the_answers(output: Path) -> None:
    held(output)
    file = output.with_name("held.jsonl")
    told: list[str] = []
    answers = iter(["a", "e", "Another text.", "q"])
    decide(file, lambda _: next(answers), told.append)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["decision"] for row in rows] == ["approve", "edit", None]
    assert rows[1]["text"] == "Another text."
    assert any("forbidden_claim" in line for line in told)
    # Nothing of a row acts on a terminal.
    assert all(line.isprintable() for line in told)
    decide(file, lambda _: "d", told.append)
    assert [json.loads(line)["decision"] for line in file.read_text().splitlines()] == ["approve", "edit", "discard"]


def test_a_person_who_leaves_has_decided_so_far(output: Path) -> None:
    held(output)
    file = output.with_name("held.jsonl")

    def ask(_: str) -> str:
        if asked:
            raise KeyboardInterrupt
        asked.append(1)
        return "a"

    asked: list[int] = []
    decide(file, ask, lambda _: None)
    assert [json.loads(line)["decision"] for line in file.read_text().splitlines()] == ["approve", None, None]


@pytest.mark.usefixtures("own_log")
def test_the_commands(output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "enrich.toml"
    config.write_text(
        '[machine]\nengine = "echo"\n[catalogue]\nid = "id"\nattributes = ["colour"]\n'
        '[text]\ntemplate = "{title} {attributes}"\n'
        '[quality]\nforbidden = { "*" = ["black"], "Lamps" = ["bright"] }\nmin_chars = 8\nretries = 0\n'
    )
    file = tmp_path / "held.jsonl"
    assert main(["held", str(output), "--out", str(file), "--config", str(config)]) == 0
    assert "3 held products" in capsys.readouterr().out
    fill = [json.loads(line) | {"decision": "discard"} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in fill))
    assert main(["review", str(file)]) == 0
    assert "3 discarded" in capsys.readouterr().out
    assert main(["held", str(tmp_path / "none.parquet"), "--out", str(file), "--config", str(config)]) == 66
