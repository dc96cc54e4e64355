"""A whole run with the echo engine: each row against its own input, and what is written once, again, or anew."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from tokenizers import Tokenizer, models, pre_tokenizers

import enrich as package
from enrich.author import Author
from enrich.catalog.read import open_catalogue
from enrich.engine.protocol import Completion, Request
from enrich.errors import CatalogueError, SettingsError, Stopped, TooManyRejected, UsageError
from enrich.generate import Generating
from enrich.memory import Memory, Review
from enrich.night import how_to_read
from enrich.products import Product
from enrich.recipe import product_key
from enrich.settings import load_settings
from tests.runs import (
    ROOT,
    Listening,
    Row,
    column,
    command,
    enrich,
    environment,
    output_of,
    quarantine_of,
    read_rows,
    rows_of,
    texts_in,
    write_catalogue,
)

OURS = ("enrich_status", "enrich_flags", "enrich_score")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every product the engine is asked about, in order."""
    products: list[str] = []
    monkeypatch.setattr("enrich.writer.EchoGenerator", Listening(products))
    return products


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catalogues are read eight rows at a time."""
    monkeypatch.setattr("enrich.catalog.batch_size._MAX_ROWS", 8)


# --- fates -----------------------------------------------------------------------------------------------------------

FATES: list[tuple[Row, str, str | None, list[str], int | None]] = [
    ({"title": "Lamp", "description": "A lamp."}, "kept", "A lamp.", [], None),
    ({"title": None, "description": "No title, but a text."}, "kept", "No title, but a text.", [], None),
    ({"title": "Kettle", "description": None}, "generated", "Kettle", [], 100),
    ({"title": "Spoon", "description": ""}, "generated", "Spoon", [], 100),
    ({"title": "Fork", "description": " \t "}, "generated", "Fork", [], 100),
    ({"title": "Knife", "description": "N/A"}, "kept", "N/A", [], None),
    ({"title": "Chávena <b>azul</b> &amp; pires", "description": None}, "generated", "Chávena azul & pires", [], 100),
    ({"title": "EMPTY", "description": ""}, "held", "", ["empty"], 0),
    ({"title": "FAIL", "description": "  "}, "rejected", "  ", ["model_failed"], None),
    ({"title": None, "description": None}, "rejected", None, ["no_title"], None),
    ({"title": "  ", "description": ""}, "rejected", "", ["no_title"], None),
    ({"title": "★ ★", "description": None}, "rejected", None, ["unusable_title"], None),
]


@pytest.mark.parametrize("name", ["catalogue.parquet", "catalogue.jsonl", "catalogue.json"])
def test_every_row_has_the_fate_that_its_own_input_asks_for(tmp_path: Path, asked: list[str], name: str) -> None:
    catalogue = write_catalogue(tmp_path / name, [row for row, *_ in FATES])
    report = enrich(catalogue)
    found = read_rows(output_of(catalogue))
    expected = [
        {
            "title": row["title"],
            "description": text,
            "enrich_status": status,
            "enrich_flags": flags,
            "enrich_score": score,
        }
        for row, status, text, flags, score in FATES
    ]
    assert found == expected
    assert report.status == 0
    assert report.summaries[0].statuses == Counter(row["enrich_status"] for row in found)


def test_long_rows_say_that_title_or_text_was_cut(tmp_path: Path) -> None:
    rows = [{"title": "x" * length, "description": None} for length in (20, 60, 400)]
    catalogue = write_catalogue(tmp_path / "a.parquet", rows)
    enrich(catalogue, text={"max_new_tokens": 40}, quality={"actions": {"cut_off": "publish"}})
    found = read_rows(output_of(catalogue))
    assert [row["enrich_flags"] for row in found] == [[], ["cut_off"], ["cut_off", "title_cut"]]
    assert [row["enrich_score"] for row in found] == [100, 60, 60]
    assert [row["description"].strip("x") for row in found] == [""] * 3
    assert found[0]["description"] == rows[0]["title"]


def test_a_text_that_the_limit_ended_is_cut_back_to_its_last_sentence_or_held(tmp_path: Path) -> None:
    titles = [
        "Lamp. It is blue and bright",
        "A lamp that has no sentence",
        "A lamp for desks",
        "One. Two! Three of them",
    ]
    catalogue = write_catalogue(tmp_path / "a.parquet", [{"title": title, "description": None} for title in titles])
    enrich(catalogue, text={"max_new_tokens": 18})
    assert [
        tuple(row[name] for name in ("title", "description", *OURS)) for row in read_rows(output_of(catalogue))
    ] == [
        (titles[0], "Lamp.", "generated", ["trimmed"], 95),
        (titles[1], None, "held", ["cut_off"], 60),
        (titles[2], titles[2], "generated", [], 100),
        (titles[3], "One. Two!", "generated", ["trimmed"], 95),
    ]


def test_records_that_are_none_leave_no_row_and_every_record_is_accounted_for(tmp_path: Path) -> None:
    lines = [
        b'{"title": "Lamp", "description": null}',
        b'{"title": "Broken", ',
        b'{"title": 5, "description": null}',
        b'{"title": "Number", "description": 7}',
        b'\xff\xfe{"title": "Bytes"}',
        b"[1, 2]",
        b'{"title": 6, "description": "Described."}',
    ]
    catalogue = tmp_path / "a.jsonl"
    catalogue.write_bytes(b"\n".join(lines))
    (summary,) = enrich(catalogue).summaries
    found, quarantined = read_rows(output_of(catalogue)), quarantine_of(output_of(catalogue))
    assert [(row["title"], row["description"], row["enrich_status"], row["enrich_flags"]) for row in found] == [
        ("Lamp", "Lamp", "generated", []),
        (None, None, "rejected", ["bad_type"]),
        ("Number", None, "rejected", ["bad_type"]),
        (None, "Described.", "kept", []),
    ]
    lost = [entry for entry in quarantined if not entry["row_kept"]]
    assert len(found) + len(lost) == len(lines) == summary.records
    assert {entry["line"] for entry in lost} == {2, 5, 6}
    assert {entry["line"] for entry in quarantined if entry["row_kept"]} == {3, 4, 7}


def test_a_listed_placeholder_is_replaced_and_any_other_is_only_counted(tmp_path: Path) -> None:
    rows = [{"title": f"Lamp {text}", "description": text} for text in ("N/A", " n/a ", "-", "A lamp.")]
    catalogue = write_catalogue(tmp_path / "a.parquet", rows)
    (summary,) = enrich(catalogue, catalogue={"placeholders": ["n/A"]}).summaries
    assert column(output_of(catalogue), "description") == ["Lamp N/A", "Lamp n/a", "-", "A lamp."]
    assert summary.unlisted_placeholders == 1


def test_attributes_reach_the_text_of_their_own_row(tmp_path: Path) -> None:
    rows = [
        {"title": f"Lamp {n}", "description": None, "specs": {"colour": colour}, "price": price}
        for n, (colour, price) in enumerate([("red", 1.5), ("blue", None), (None, 2.0)])
    ]
    catalogue = write_catalogue(tmp_path / "a.parquet", rows)
    enrich(catalogue, catalogue={"attributes": ["price", "specs.colour"]})
    assert column(output_of(catalogue), "description") == [
        "Lamp 0; price: 1.5; colour: red",
        "Lamp 1; colour: blue",
        "Lamp 2; price: 2.0",
    ]


def test_without_a_text_rows_are_pending_and_the_next_night_fills_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_of(10))
    with monkeypatch.context() as patch:
        patch.setattr(Generating, "generate", lambda *_: None)
        report = enrich(catalogue)
    assert report.status == 6
    pending = read_rows(output_of(catalogue))
    assert [row["enrich_status"] for row in pending] == ["kept", "pending"] * 5
    assert [row["description"] for row in pending] == [row["description"] for row in rows_of(10)]
    assert enrich(catalogue).status == 0
    assert set(column(output_of(catalogue), "enrich_status")) == {"kept", "generated"}


def test_what_a_person_decided_wins_over_the_model(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_of(8))
    enrich(catalogue)
    reviews = {
        product_key(Product("Product 3")): Review("approved", "What a person wrote."),
        product_key(Product("Product 5")): Review("wrong_colour"),
        product_key(Product("Product 4")): Review("approved", "For a row that is described already."),
    }
    with Memory.open(tmp_path / ".enrich" / "memory.sqlite") as memory:
        memory.add_reviews(reviews)
    enrich(catalogue)
    found = {row["title"]: row for row in read_rows(output_of(catalogue))}
    assert (found["Product 3"]["enrich_status"], found["Product 3"]["description"]) == (
        "approved",
        "What a person wrote.",
    )
    assert [found["Product 5"][name] for name in ("description", *OURS)] == [None, "held", ["wrong_colour"], None]
    assert (found["Product 4"]["enrich_status"], found["Product 4"]["description"]) == ("kept", "Text 4.")
    assert (found["Product 1"]["enrich_status"], found["Product 1"]["description"]) == ("generated", "Product 1")
    # Another template makes other keys; the decision stays.
    report = enrich(catalogue, text={"template": "Say: {title}"})
    assert column(output_of(catalogue), "description")[3] == "What a person wrote."
    # Nor is a text written that nobody will read.
    assert report.summaries[0].written == report.summaries[0].statuses["generated"] == 2


# --- tried again -----------------------------------------------------------------------------------------------------


class _Trying(Listening):
    """Answers with the product and the attempt; `at 2` has no text before that attempt, FAIL fails at any."""

    def __init__(self, asked: list[tuple[str, int]]) -> None:
        super().__init__([])
        self.tried = asked

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            product = bytes(i for i in request.prompt_ids if i < 256).decode().strip()
            self.tried.append((product, request.attempt))
            text = f"{product} by {request.attempt}" if request.attempt >= int(product.rsplit(" ", 1)[1]) else ""
            failed = "FAIL" in product
            yield Completion(request.key, () if failed else tuple(text.encode()), "failed" if failed else "eos")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every product and attempt the engine is asked about, in order."""
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr("enrich.writer.EchoGenerator", _Trying(asked))
    return asked


def trying(path: Path, *attempts: int, first: int = 0) -> Path:
    """A catalogue of rows whose texts come at those attempts."""
    rows = [{"title": f"Lamp {first + n} at {at}", "description": None} for n, at in enumerate(attempts)]
    return write_catalogue(path, rows)


def found_at(at: int | None, row: int, attempt: int) -> Row:
    """The published row: its text, or none."""
    published = {"enrich_status": "generated", "enrich_flags": [], "enrich_score": 100}
    held = {"enrich_status": "held", "enrich_flags": ["empty"], "enrich_score": 0}
    title = f"Lamp {row} at {attempt}"
    return {
        "title": title,
        **({"description": None, **held} if at is None else {"description": f"{title} by {at}", **published}),
    }


def test_a_text_that_may_not_be_published_is_tried_again_and_then_held(
    tmp_path: Path, tried: list[tuple[str, int]], small_batches: None
) -> None:
    attempts = [0, 3, 1, 2, 4, 0, 2, 1, 9, 0, 1]
    catalogue = trying(tmp_path / "a.parquet", *attempts)
    (summary,) = enrich(catalogue).summaries
    first, again = tried[: len(attempts)], tried[len(attempts) :]
    assert first == [(f"Lamp {n} at {at}", 0) for n, at in enumerate(attempts)]
    # One round after the other, each for those that still have no text.
    assert sorted(again) == sorted(
        (f"Lamp {n} at {at}", attempt) for attempt in (1, 2) for n, at in enumerate(attempts) if at >= attempt
    )
    assert [attempt for _, attempt in again] == [1] * 8 + [2] * 5
    assert read_rows(output_of(catalogue)) == [
        found_at(at if at <= 2 else None, n, at) for n, at in enumerate(attempts)
    ]
    assert summary.written == len(tried)
    assert summary.statuses == {"generated": 8, "held": 3}


def test_what_is_held_after_its_attempts_stays_so_until_more_are_allowed(
    tmp_path: Path, tried: list[tuple[str, int]]
) -> None:
    catalogue = trying(tmp_path / "a.parquet", 0, 3, 4, 1)
    enrich(catalogue)
    published = output_of(catalogue).read_bytes()
    tried.clear()
    assert enrich(catalogue).summaries[0].written == 0
    assert enrich(catalogue, quality={"retries": 0}).summaries[0].written == 0
    assert output_of(catalogue).read_bytes() == published
    assert tried == []
    enrich(catalogue, quality={"retries": 3})
    assert sorted(tried) == [("Lamp 1 at 3", 3), ("Lamp 2 at 4", 3)]
    assert read_rows(output_of(catalogue)) == [
        found_at(at, n, attempt) for n, (at, attempt) in enumerate([(0, 0), (3, 3), (None, 4), (1, 1)])
    ]


def test_without_retries_a_text_is_tried_once(tmp_path: Path, tried: list[tuple[str, int]]) -> None:
    catalogue = trying(tmp_path / "a.parquet", 0, 1, 2)
    enrich(catalogue, quality={"retries": 0})
    assert [attempt for _, attempt in tried] == [0, 0, 0]
    assert column(output_of(catalogue), "enrich_status") == ["generated", "held", "held"]


def test_what_is_to_be_held_is_not_tried_again(tmp_path: Path, tried: list[tuple[str, int]]) -> None:
    catalogue = trying(tmp_path / "a.parquet", 0, 1)
    enrich(catalogue, quality={"actions": {"empty": "hold"}})
    assert [attempt for _, attempt in tried] == [0, 0]
    # The control: by default it is tried again, and what was held before is tried on.
    enrich(catalogue)
    assert tried[2:] == [("Lamp 1 at 1", 1)]
    assert column(output_of(catalogue), "enrich_status") == ["generated", "generated"]


def test_what_was_written_in_vain_is_known_in_other_files_too(tmp_path: Path, tried: list[tuple[str, int]]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.parquet", "b.parquet"):
        trying(folder / name, 1, 1, 9, 0)
    enrich(folder)
    # Every product once an attempt: the second file finds what was written for the first.
    assert Counter(tried).most_common(1)[0][1] == 1
    assert len(tried) == 4 + 3 + 1
    for name in ("a", "b"):
        found = read_rows(tmp_path / "folder.enriched" / f"{name}.enriched.parquet")
        assert found == [
            found_at(at, n, attempt) for n, (at, attempt) in enumerate([(1, 1), (1, 1), (None, 9), (0, 0)])
        ]


def test_other_rules_judge_anew_the_best_attempt_is_shown_and_nothing_is_written(
    tmp_path: Path, tried: list[tuple[str, int]]
) -> None:
    catalogue = trying(tmp_path / "a.parquet", 1, 0)
    # The second of three texts of the first row is the best: the first says nothing, the third is as short.
    enrich(catalogue, quality={"min_chars": 40})
    held = {"description": None, "enrich_status": "held", "enrich_flags": ["too_short"], "enrich_score": 70}
    assert [{**row, "title": None} for row in read_rows(output_of(catalogue))] == [{"title": None, **held}] * 2
    assert len(tried) == 6
    assert enrich(catalogue, quality={"min_chars": 5}).summaries[0].written == 0
    assert read_rows(output_of(catalogue)) == [found_at(1, 0, 1), found_at(0, 1, 0)]
    assert enrich(catalogue, quality={"min_chars": 40}).summaries[0].written == 0
    assert column(output_of(catalogue), "enrich_status") == ["held", "held"]
    assert len(tried) == 6


def test_asked_to_a_night_works_on_held_rows_alone(tmp_path: Path, tried: list[tuple[str, int]]) -> None:
    rows = [
        {"title": title, "description": None}
        for title in ("Lamp 0 at 0", "Lamp 1 at 4", "FAIL at 0", "Lamp 3 at 9", "Lamp 4 at 3", "Lamp 5 at 9")
    ]
    catalogue = write_catalogue(tmp_path / "a.parquet", rows)
    enrich(catalogue)
    with Memory.open(tmp_path / ".enrich" / "memory.sqlite") as memory:
        memory.add_reviews({product_key(Product("Lamp 5 at 9")): Review("discarded")})
    write_catalogue(catalogue, [*rows, {"title": "Lamp 6 at 0", "description": None}])
    tried.clear()
    report = enrich(catalogue, retry="held")
    assert sorted(tried) == [
        ("Lamp 1 at 4", 3), ("Lamp 1 at 4", 4), ("Lamp 3 at 9", 3), ("Lamp 3 at 9", 4), ("Lamp 4 at 3", 3),
    ]  # fmt: skip
    assert column(output_of(catalogue), "description") == [
        "Lamp 0 at 0 by 0", "Lamp 1 at 4 by 4", None, None, "Lamp 4 at 3 by 3", None, None,
    ]  # fmt: skip
    assert column(output_of(catalogue), "enrich_status") == [
        "generated", "generated", "rejected", "held", "generated", "held", "pending",
    ]  # fmt: skip
    assert report.status == 6
    # As often as one asks.
    tried.clear()
    enrich(catalogue, retry="held", quality={"retries": 0})
    assert tried == [("Lamp 3 at 9", 5)]
    # The control: a usual night writes what is missing, and nothing else.
    tried.clear()
    assert enrich(catalogue).status == 0
    assert tried == [("Lamp 6 at 0", 0)]


def test_asked_to_a_night_works_on_rejected_rows_alone(tmp_path: Path, tried: list[tuple[str, int]]) -> None:
    titles = ["Lamp 0 at 0", "FAIL at 1", "Lamp 2 at 9", "FAIL at 3"]
    catalogue = write_catalogue(tmp_path / "a.parquet", [{"title": title, "description": None} for title in titles])
    enrich(catalogue)
    tried.clear()
    enrich(catalogue, retry="rejected")
    assert sorted(tried) == [("FAIL at 1", 1), ("FAIL at 3", 1)]
    assert column(output_of(catalogue), "enrich_status") == ["generated", "rejected", "held", "rejected"]
    with pytest.MonkeyPatch.context() as patch:
        # The engine has been mended since.
        patch.setattr("enrich.writer.EchoGenerator", Listening([]))
        patch.setattr(Listening, "generate", _without_failing)
        assert enrich(catalogue).summaries[0].written == 0
        assert enrich(catalogue, retry="rejected").summaries[0].written == 2
    assert column(output_of(catalogue), "description") == ["Lamp 0 at 0 by 0", "FAIL at 1", None, "FAIL at 3"]
    assert enrich(catalogue, retry="rejected").summaries[0].written == 0


def _without_failing(_: Listening, requests: Iterable[Request]) -> Iterator[Completion]:
    for request in requests:
        yield Completion(request.key, tuple(i for i in request.prompt_ids if i < 256), "eos")


# --- once, again, anew -----------------------------------------------------------------------------------------------


def test_a_product_is_written_once_within_a_batch_across_batches_and_across_files(
    tmp_path: Path, asked: list[str], small_batches: None
) -> None:
    titles = [f"Twin {n % 5}" if n % 3 else f"Single {n}" for n in range(60)]
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.parquet", "b.parquet"):
        catalogue = write_catalogue(folder / name, [{"title": title, "description": None} for title in titles], 7)
    assert open_catalogue(catalogue, how_to_read(load_settings().catalogue), tmp_path).batch_rows == 8
    enrich(folder)
    assert Counter(asked) == Counter(set(titles))
    for name in ("a", "b"):
        assert column(tmp_path / "folder.enriched" / f"{name}.enriched.parquet", "description") == titles


def test_a_second_run_writes_nothing_and_ten_new_rows_cost_ten_texts(tmp_path: Path, asked: list[str]) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_of(40))
    assert enrich(catalogue).summaries[0].written == len(asked) == 20
    first = output_of(catalogue).read_bytes()
    asked.clear()
    assert enrich(catalogue).summaries[0].written == 0
    assert asked == []
    assert output_of(catalogue).read_bytes() == first
    # In front, so that every former row moves.
    write_catalogue(catalogue, [*rows_of(20, first=100), *rows_of(40)])
    assert enrich(catalogue).summaries[0].written == len(asked) == 10
    assert column(output_of(catalogue), "description")[20:] == column_of(rows_of(40))


def column_of(rows: list[Row]) -> list[str]:
    return [row["description"] or row["title"] for row in rows]


@pytest.mark.parametrize(
    "changed",
    [
        {"text": {"template": "Describe {title}: {description}"}},
        {"text": {"max_new_tokens": 100}},
        {"text": {"max_prompt_tokens": 180}},
        {"text": {"dtype": "bfloat16"}},
        {"text": {"quantize": "8bit"}},
        {"catalogue": {"attributes": ["id"]}},
    ],
)
def test_what_decides_a_text_reuses_none(tmp_path: Path, asked: list[str], changed: Any) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_of(20))
    enrich(catalogue)
    assert enrich(catalogue, **changed).summaries[0].written == 10
    assert len(asked) == 20
    # And back again: what was written first is still known.
    assert enrich(catalogue).summaries[0].written == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"machine": {"batch_rows": 3}},
        {"machine": {"device": "cpu"}},
        {"machine": {"gpu_hour_price": 3.0}},
        {"publish": {"max_rejected": 0}},
        {"quality": {"retries": 5, "min_score": 90}},
        {"quality": {"min_chars": 3, "max_chars": 500, "locale": "pt", "allowed": ["Product"]}},
        {"quality": {"forbidden": {"*": ["cures"]}, "actions": {"empty": "hold"}, "terms": {"brand": ["Product"]}}},
        {"catalogue": {"id": "id"}},
        {"catalogue": {"title": "title", "description": "description"}},
    ],
    ids=str,
)
def test_what_decides_no_text_reuses_all(tmp_path: Path, asked: list[str], changed: Any) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_of(20))
    enrich(catalogue)
    assert enrich(catalogue, **changed).summaries[0].written == 0
    assert len(asked) == 10


def test_the_same_work_is_known_wherever_it_lies(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_of(20))
    enrich(catalogue)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for spelling in (
        "a.parquet",
        "./a.parquet",
        f"../{tmp_path.name}/a.parquet",
        "link/a.parquet",
        tmp_path / "a.parquet",
    ):
        assert enrich(spelling).summaries[0].written == 0, spelling
    for state in (".enrich", f"../{tmp_path.name}/.enrich", "link/.enrich"):
        assert enrich("a.parquet", machine={"state": state}).summaries[0].written == 0, state
    moved = write_catalogue(tmp_path / "renamed.parquet", list(reversed(rows_of(20))), row_group_rows=3)
    assert enrich(moved).summaries[0].written == 0
    assert len(asked) == 10


# A model without weights: folders that are fit to be chosen, and an engine that never loads them.


def build_base(folder: Path, seed: int) -> Path:
    folder.mkdir()
    sizes = {
        "vocab_size": 3,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **sizes}))
    words = {"<s>": 0, "</s>": 1, "<unk>": 2}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    safetensors.numpy.save_file({"weight": np.full(4, seed, np.float32)}, folder / "model.safetensors")
    return folder


def build_adapter(folder: Path, seed: int) -> Path:
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file({"weight": np.full(4, seed, np.float32)}, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def weightless(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    products: list[str] = []
    listening = Listening(products)
    nowhere = SimpleNamespace(device_name="nothing", device=SimpleNamespace(type="cpu"))
    monkeypatch.setattr(Author, "load", lambda _: nowhere)
    monkeypatch.setattr("enrich.engine.tiers.open_engine", lambda *_, **__: listening(100))
    return products


def test_another_base_or_adapter_reuses_no_text(tmp_path: Path, weightless: list[str]) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_of(8))
    bases = [str(build_base(tmp_path / f"base{seed}", seed)) for seed in (1, 2)]
    adapters = ["none", *(str(build_adapter(tmp_path / f"adapter{seed}", seed)) for seed in (1, 2))]
    twin = str(build_base(tmp_path / "twin", 1))
    # A title alone is no description: no matter here.
    text, once = {"template": "{title}"}, {"retries": 0}
    for base in bases:
        for adapter in adapters:
            model = {"base": base, "adapter": adapter}
            written = [
                enrich(catalogue, machine={"engine": "auto"}, model=model, text=text, quality=once).summaries[0].written
                for _ in "12"
            ]
            assert written == [4, 0], model
    assert len(weightless) == 24
    model = {"base": twin, "adapter": "none"}
    report = enrich(catalogue, machine={"engine": "auto"}, model=model, text=text, quality=once)
    assert report.summaries[0].written == 0


_LOADED = """
import sys
from enrich.cli import main
status = main(sys.argv[1:])
print("torch" in sys.modules, "transformers" in sys.modules)
sys.exit(status)
"""


def test_a_night_on_which_all_is_known_loads_no_model(tmp_path: Path, weightless: list[str]) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_of(8))
    base = build_base(tmp_path / "base", 1)
    enrich(catalogue, machine={"engine": "auto"}, model={"base": str(base), "adapter": "none"})

    def again() -> "subprocess.CompletedProcess[str]":
        arguments = [sys.executable, "-c", _LOADED, "run", str(catalogue), "--base", str(base), "--adapter", "none"]
        return subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=False)

    known = again()
    assert (known.returncode, known.stdout.splitlines()[-1]) == (0, "False False")
    write_catalogue(catalogue, rows_of(10))
    new = again()
    # The control: a single new row needs the model, whose weights are none.
    assert (new.returncode, new.stdout.splitlines()[-1]) == (69, "True True")


# --- our own output --------------------------------------------------------------------------------------------------


def test_our_own_output_fed_back_keeps_its_fates_in_their_places(tmp_path: Path, asked: list[str]) -> None:
    rows = [*rows_of(6), {"id": "x", "title": "EMPTY", "description": None}]
    once = output_of(write_catalogue(tmp_path / "a.parquet", rows))
    enrich(tmp_path / "a.parquet")
    state = tmp_path / ".enrich"
    with Memory.open(state / "memory.sqlite") as memory:
        memory.add_reviews({product_key(Product("Product 1")): Review("approved", "Approved.")})
    enrich(tmp_path / "a.parquet")
    # A column behind ours, as someone may add one.
    table = pq.read_table(once)
    pq.write_table(table.append_column("later", pa.array(range(7))), once)
    asked.clear()
    twice = tmp_path / "twice.parquet"
    enrich(once, twice, machine={"state": tmp_path / "elsewhere"}, text={"max_new_tokens": 90})
    assert pq.read_schema(twice).names == ["id", "title", "description", *OURS, "later"]
    before, after = read_rows(once), read_rows(twice)
    assert [row["enrich_status"] for row in after] == [
        "kept", "approved", "kept", "generated", "kept", "generated", "held",
    ]  # fmt: skip
    assert after == before
    # Once, and again as often as a text is tried.
    assert asked == ["EMPTY"] * 3


def test_the_footer_remembers_whose_texts_came_in(tmp_path: Path) -> None:
    def footer(path: Path) -> Any:
        return json.loads(pq.read_schema(path).metadata[b"enrich"])

    enrich(write_catalogue(tmp_path / "a.parquet", rows_of(6)))
    once, twice, thrice = (tmp_path / f"{name}.parquet" for name in ("a.enriched", "twice", "thrice"))
    enrich(once, twice, text={"max_new_tokens": 90})
    enrich(twice, thrice, text={"max_new_tokens": 80})
    assert "former" not in footer(once)
    assert footer(once)["base"] == {"name": "echo"}
    assert footer(twice)["former"] == [footer(once)]
    assert [each["settings"] for each in footer(thrice)["former"]] == [
        footer(each)["settings"] for each in (once, twice)
    ]
    assert footer(thrice)["settings"] not in [each["settings"] for each in footer(thrice)["former"]]


@pytest.mark.parametrize("name", OURS)
def test_a_strangers_column_of_our_name_is_refused(tmp_path: Path, name: str) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", [{**row, name: "theirs"} for row in rows_of(4)])
    with pytest.raises(CatalogueError, match=f"{name} that this tool did not write") as refusal:
        enrich(catalogue)
    assert refusal.value.code == "foreign_column"
    assert not output_of(catalogue).exists()


@pytest.mark.parametrize("footer", [b"not json", b"[1]", b"5", b"\xff", b"null"])
def test_a_strangers_footer_of_our_name_is_refused(tmp_path: Path, footer: bytes) -> None:
    table = pa.Table.from_pylist(rows_of(4)).replace_schema_metadata({b"enrich": footer})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(CatalogueError, match="footer"):
        enrich(tmp_path / "a.parquet")


# --- several catalogues ----------------------------------------------------------------------------------------------


def test_of_a_folder_each_file_is_published_by_itself_and_the_gravest_status_comes_out(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    (folder / "deep").mkdir(parents=True)
    write_catalogue(folder / "a.parquet", rows_of(6))
    (folder / "b.jsonl").write_bytes(b'{"title": 1.5}\n{"title": 2}\n' * 20)
    (folder / "c.parquet").write_bytes(b"PAR1 and no more")
    write_catalogue(folder / "deep" / "d.jsonl", [{"name": "Kettle", "size": 2}])
    write_catalogue(folder / "e.parquet", [{"who": "knows"}])
    report = enrich(folder)
    assert {Path(each.input).name: each.status for each in report.summaries} == {
        "a.parquet": 0,
        "b.jsonl": 4,
        "c.parquet": 65,
        "d.jsonl": 0,
        "e.parquet": 78,
    }
    assert report.status == 78
    published = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("shop.enriched/**/*.parquet"))
    assert published == ["shop.enriched/a.enriched.parquet", "shop.enriched/deep/d.enriched.parquet"]
    assert column(tmp_path / published[1], "description") == ["Kettle"]
    told = json.loads((report.folder / "summary.json").read_bytes())
    assert [bool(each["error"]) for each in told["catalogues"]] == [False, True, True, False, True]


def test_our_own_outputs_in_a_folder_are_not_inputs(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    write_catalogue(folder / "a.parquet", rows_of(6))
    for _ in range(2):
        report = enrich(folder / "a.parquet")
        assert [Path(each.input).name for each in enrich(folder).summaries] == ["a.parquet"]
        assert [Path(each.input).name for each in enrich(str(folder / "*.parquet"), folder).summaries] == ["a.parquet"]
    assert report.status == 0


def test_one_catalogue_under_two_names_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    catalogue = write_catalogue(folder / "a.parquet", rows_of(4))
    (folder / "b.parquet").symlink_to(catalogue)
    with pytest.raises(CatalogueError) as refusal:
        enrich(folder)
    assert refusal.value.code == "listed_twice"
    (folder / "b.parquet").unlink()
    write_catalogue(folder / "a.jsonl", rows_of(4))
    with pytest.raises(UsageError, match="would both become"):
        enrich(folder)
    for output in (catalogue, folder / ".." / "shop" / "a.parquet"):
        with pytest.raises(UsageError, match="would replace the input"):
            enrich(catalogue, output)


# --- too many bad rows -----------------------------------------------------------------------------------------------


def test_too_many_bad_rows_leave_the_former_output_as_it_is(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_of(6))
    enrich(catalogue)
    published = output_of(catalogue).read_bytes()
    bad = [{"id": str(n), "title": None, "description": None} for n in range(3)]
    write_catalogue(catalogue, [*rows_of(6), *bad])
    with pytest.raises(TooManyRejected, match="3 bad records, 2 are allowed"):
        enrich(catalogue, publish={"max_rejected": 2})
    assert output_of(catalogue).read_bytes() == published
    assert list(tmp_path.glob(".*.tmp")) == []
    assert enrich(catalogue, publish={"max_rejected": 3}).status == 0
    assert output_of(catalogue).read_bytes() != published


@pytest.mark.parametrize(
    ("good", "bad", "published"), [(0, 10, True), (0, 11, False), (1989, 20, True), (1989, 21, False)]
)
def test_ten_bad_rows_or_one_in_a_hundred_are_tolerated(tmp_path: Path, good: int, bad: int, published: bool) -> None:
    rows = [{"title": f"Lamp {n}", "description": "A lamp."} for n in range(good)]
    catalogue = write_catalogue(tmp_path / "a.parquet", [*rows, *[{"title": " ", "description": None}] * bad])
    if published:
        assert enrich(catalogue).status == 0
    else:
        with pytest.raises(TooManyRejected):
            enrich(catalogue)
    assert output_of(catalogue).exists() == published


def test_what_the_model_cannot_do_is_no_bad_row(tmp_path: Path, asked: list[str]) -> None:
    catalogue = write_catalogue(
        tmp_path / "a.parquet", [{"title": f"FAIL {n}", "description": None} for n in range(40)]
    )
    report = enrich(catalogue, publish={"max_rejected": 0})
    assert (report.status, report.summaries[0].rejected) == (0, {"model_failed": 40})


# --- types of the description column ---------------------------------------------------------------------------------

TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.string()),
]


def _in_type(texts: list[str | None], data_type: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(data_type):
        return _in_type(texts, data_type.value_type).dictionary_encode().cast(data_type)
    return pa.array([text and text.encode() for text in texts], pa.binary()).cast(data_type)


@pytest.mark.parametrize("data_type", TEXT_TYPES, ids=str)
def test_a_description_of_any_text_type_is_filled_and_keeps_its_type(tmp_path: Path, data_type: pa.DataType) -> None:
    rows = rows_of(12)
    table = pa.Table.from_pylist(rows).set_column(
        2, "description", _in_type([r["description"] for r in rows], data_type)
    )
    pq.write_table(table, tmp_path / "a.parquet")
    enrich(tmp_path / "a.parquet")
    found = pq.read_table(tmp_path / "a.enriched.parquet")
    assert found.schema.field("description") == table.schema.field("description")
    published = found.column("description").to_pylist()
    assert [text.decode() if isinstance(text, bytes) else text for text in published] == column_of(rows)
    package.verify(tmp_path / "a.parquet")


def test_a_dictionary_too_narrow_for_the_new_texts_is_told_in_one_line(tmp_path: Path) -> None:
    rows = [{"title": f"Lamp {n}", "description": None if n else "A lamp."} for n in range(400)]
    narrow = _in_type([row["description"] for row in rows], pa.dictionary(pa.int8(), pa.string()))
    pq.write_table(pa.Table.from_pylist(rows).set_column(1, "description", narrow), tmp_path / "a.parquet")
    with pytest.raises(CatalogueError, match="too narrow for the new texts"):
        enrich(tmp_path / "a.parquet")
    assert not output_of(tmp_path / "a.parquet").exists()


@pytest.mark.parametrize("absent", [True, False])
def test_a_catalogue_without_a_description_gets_one(tmp_path: Path, absent: bool) -> None:
    table = pa.table({"title": ["Lamp", "Kettle"], "price": [1.0, None]})
    pq.write_table(table if absent else table.append_column("description", pa.nulls(2)), tmp_path / "a.parquet")
    enrich(tmp_path / "a.parquet")
    schema = pq.read_schema(tmp_path / "a.enriched.parquet")
    assert schema.names == ["title", "price", "description", *OURS]
    assert schema.field("description").type == pa.string()
    assert column(tmp_path / "a.enriched.parquet", "description") == ["Lamp", "Kettle"]
    package.verify(tmp_path / "a.parquet")


def test_an_empty_catalogue_is_published_empty(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows_of(1)).slice(0, 0), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_bytes(b"")
    (tmp_path / "c.json").write_bytes(b"[]")
    for name in ("a.parquet", "b.jsonl", "c.json"):
        assert enrich(tmp_path / name).status == 0
        assert read_rows(output_of(tmp_path / name)) == []
        assert set(OURS) < set(pq.read_schema(output_of(tmp_path / name)).names)


def test_a_column_that_could_be_two_things_is_asked_about(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", [{"title": "Lamp", "name": "Other", "description": None}])
    with pytest.raises(SettingsError, match="title, name"):
        enrich(catalogue)
    enrich(catalogue, catalogue={"title": "name"})
    assert column(output_of(catalogue), "description") == ["Other"]


# --- the same bytes --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["catalog.parquet", "catalog.jsonl"])
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / request.param).write_bytes((ROOT / "samples" / request.param).read_bytes())
    return Path(request.param)


def test_the_same_work_gives_the_same_bytes(tmp_path: Path, sample: Path, asked: list[str]) -> None:
    for place in ("one", "two"):
        enrich(tmp_path / place / sample, catalogue={"attributes": ["brand"], "placeholders": ["n/a", "-"]})
    one, two = (output_of(tmp_path / place / sample).read_bytes() for place in ("one", "two"))
    assert one == two
    assert len(asked) == 2 * len(set(asked)) > 200


def test_half_a_night_and_the_rest_give_the_bytes_of_a_whole_one(tmp_path: Path, sample: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("enrich.writer.EchoGenerator", _Stopping)
        with pytest.raises(Stopped):
            enrich(tmp_path / "one" / sample)
    assert len(texts_in(tmp_path / "one" / ".enrich")) == 60
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("enrich.writer.EchoGenerator", Listening([]))
        assert enrich(tmp_path / "one" / sample).summaries[0].written > 0
    enrich(tmp_path / "two" / sample)
    assert output_of(tmp_path / "one" / sample).read_bytes() == output_of(tmp_path / "two" / sample).read_bytes()


class _Stopping(Listening):
    """Stops after sixty texts, as a signal would."""

    def __init__(self, max_new_tokens: int) -> None:
        super().__init__([])
        self(max_new_tokens)

    def generate(self, requests: Any) -> Iterator[Any]:
        for number, completion in enumerate(super().generate(requests)):
            if number == 60:
                raise Stopped("enough")
            yield completion


def test_the_command_is_the_same_run(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_of(6))
    (tmp_path / "b").mkdir()
    twin = write_catalogue(tmp_path / "b" / "a.parquet", rows_of(6))
    enrich(catalogue)
    assert command("run", twin, "--engine", "echo").returncode == 0
    assert output_of(twin).read_bytes() == output_of(catalogue).read_bytes()
