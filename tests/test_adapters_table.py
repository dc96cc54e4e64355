"""The table [adapters]: each row is written by the adapter of its value, as a run with that adapter alone writes it."""

import gc
import json
import shutil
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.authors import Authors
from enrich.cli import main
from enrich.engine import model as engine
from enrich.engine.bases import find_base
from enrich.errors import ModelUnavailable, SettingsError, Stopped
from enrich.memory import Entry, Verdict
from enrich.plan import Wanted
from enrich.settings import load_settings
from enrich.writer import Finished, Writer

from .engine.conftest import build_adapter, build_tiny, record_training
from .runs import PUBLISH_ALL, Row, column, enrich, output_of, read_rows, texts_in, write_catalogue

TEMPLATE = "{title}"
TABLE = {"column": "department", "values": {"Moda": "moda", "Livros": "livros"}}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and three adapters trained for it."""
    folder = tmp_path_factory.mktemp("workplace")
    base = build_tiny(folder / "base")
    for rank, name in enumerate(("moda", "livros", "jardim"), start=2):
        record_training(build_adapter(folder / name, base, r=rank), find_base(str(base), folder), TEMPLATE)
    return folder


@pytest.fixture
def at_work(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workplace as home and working folder: the checkout's own adapters must not matter."""
    monkeypatch.setenv("ENRICH_HOME", str(workplace / "home"))
    monkeypatch.chdir(workplace)
    return workplace


def sections(adapters: Any = TABLE, adapter: str = "none", **others: Any) -> dict[str, Any]:
    return {
        "machine": {"engine": "auto", "device": "cpu", "batch_rows": 4},
        "text": {"template": TEMPLATE, "max_prompt_tokens": 16, "max_new_tokens": 6},
        "model": {"base": "base", "adapter": adapter},
        "adapters": adapters,
        "quality": PUBLISH_ALL,
    } | others


def write(catalogue: Path, adapters: Any = TABLE, adapter: str = "none", **others: Any) -> int:
    """How many texts a run wrote."""
    return sum(each.written for each in enrich(catalogue, **sections(adapters, adapter, **others)).summaries)


def rows_of_departments(num_rows: int) -> list[Row]:
    """Each title in every department, in one that the table does not list, and in none; every third row described."""
    departments = ("Moda", "Livros", "Casa", None)
    return [
        {
            "title": f"w{10 + at // 4} w{40 + at // 4}",
            "department": departments[at % 4],
            "description": f"Text {at}." if at % 3 == 2 else None,
        }
        for at in range(num_rows)
    ]


def write_in_own_folder(folder: Path) -> Path:
    folder.mkdir()
    return write_catalogue(folder / "a.parquet", rows_of_departments(24))


def footer(path: Path) -> Any:
    return json.loads(pq.read_schema(path).metadata[b"enrich"])


# --- with a model ----------------------------------------------------------------------------------------------------


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The adapter of every model that is loaded, in order."""
    names: list[str | None] = []
    load = engine.load_model

    def noting(base: Any, adapter: Any = None, **options: Any) -> Any:
        names.append(adapter and adapter.folder.name)
        return load(base, adapter, **options)

    monkeypatch.setattr(engine, "load_model", noting)
    return names


def test_each_row_is_written_as_by_its_adapter_alone(at_work: Path, tmp_path: Path, loaded: list[str | None]) -> None:
    rows = rows_of_departments(48)
    catalogue = write_catalogue(tmp_path / "a.parquet", rows)
    gaps = [row for row in rows if row["description"] is None]
    assert write(catalogue) == len({(row["title"], row["department"] or "Casa") for row in gaps})
    assert loaded == [None, "livros", "moda"]
    found = read_rows(output_of(catalogue))
    alone = {}
    for name in ("none", "moda", "livros"):
        one = write_catalogue(tmp_path / f"{name}.parquet", rows)
        write(one, {}, name, machine={**sections()["machine"], "state": tmp_path / name})
        alone[name] = read_rows(output_of(one))
    expected = [alone[{"Moda": "moda", "Livros": "livros"}.get(row["department"], "none")] for row in rows]
    assert found == [table[at] for at, table in enumerate(expected)]
    # The control: had any adapter written another's rows, it would have been seen.
    texts = {
        name: [row["description"] for row in each if row["enrich_status"] != "kept"] for name, each in alone.items()
    }
    for one, two in (("none", "moda"), ("none", "livros"), ("moda", "livros")):
        assert sum(a != b for a, b in zip(texts[one], texts[two], strict=True)) > len(gaps) / 2


def test_a_second_night_writes_nothing_and_loads_no_model(
    at_work: Path, tmp_path: Path, loaded: list[str | None]
) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_of_departments(12))
    assert write(catalogue) > 0
    first = output_of(catalogue).read_bytes()
    loaded.clear()
    assert write(catalogue) == 0
    assert loaded == []
    assert output_of(catalogue).read_bytes() == first


def test_stopped_between_passes_a_second_run_gives_the_same_bytes(
    at_work: Path, tmp_path: Path, loaded: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, *stopped = (write_in_own_folder(tmp_path / name) for name in ("whole", "one", "two"))
    expected = write(whole)
    load = engine.load_model
    for num_passes, catalogue in enumerate(stopped, start=1):
        loaded.clear()

        def stopping(*given: Any, num_passes: int = num_passes, **options: Any) -> Any:
            if len(loaded) == num_passes:
                raise Stopped("as by a signal")
            return load(*given, **options)

        with monkeypatch.context() as patch:
            patch.setattr(engine, "load_model", stopping)
            with pytest.raises(Stopped):
                write(catalogue)
        committed = texts_in(catalogue.parent / ".enrich")
        assert not output_of(catalogue).exists()
        loaded.clear()
        assert write(catalogue) == expected - len(committed)
        assert loaded == [None, "livros", "moda"][num_passes:]
        assert output_of(catalogue).read_bytes() == output_of(whole).read_bytes()
        after = texts_in(catalogue.parent / ".enrich")
        assert {key: after[key] for key in committed} == committed


def test_a_model_is_let_go_before_the_next_is_loaded(
    at_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that holds one model has to do for any number of adapters."""
    alive: list[weakref.ref[Any]] = []
    left: list[int] = []
    load = engine.load_model

    def counting(*given: Any, **options: Any) -> Any:
        left.append(sum(each() is not None for each in alive))
        model = load(*given, **options)
        alive.append(weakref.ref(model.module))
        return model

    monkeypatch.setattr(engine, "load_model", counting)
    gc.disable()
    try:
        write(write_catalogue(tmp_path / "a.parquet", rows_of_departments(12)))
    finally:
        gc.enable()
    assert left == [0, 0, 0]


# --- without one -----------------------------------------------------------------------------------------------------

Asked = list[tuple[str, str]]


@pytest.fixture
def asked(at_work: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What each adapter is asked to write, in order; its answer is its name and the title."""
    pairs: Asked = []

    def answer(writer: Writer, wanted: Iterable[Wanted], *_: Any, **__: Any) -> Iterator[Finished]:
        author = writer.author
        name = author.adapter.folder.name if author.adapter else "bare"
        for each in wanted:
            pairs.append((name, each.product.title))
            text = f"{name} says {each.product.title}"
            verdict = Verdict(author.judge.policy, "publish", text, score=100)
            yield Finished([Entry(each.key, each.attempt, text, "eos", verdict)], 1)

    monkeypatch.setattr(Writer, "write", answer)
    return pairs


def rows_with(name: str, *values: Any) -> list[Row]:
    """A row for each value, titled by its place."""
    return [{"title": f"T{at}", "description": None, name: value} for at, value in enumerate(values)]


def writers(path: Path) -> list[str]:
    """Who wrote each row."""
    return [text.split()[0] for text in column(path, "description")]


def test_a_product_is_one_text_an_adapter(asked: Asked, tmp_path: Path) -> None:
    rows = [{"title": "Twin", "description": None, "department": each} for each in ("Moda", "Livros", None) * 40]
    catalogue = write_catalogue(tmp_path / "a.parquet", rows)
    assert write(catalogue) == 3
    assert asked == [("bare", "Twin"), ("livros", "Twin"), ("moda", "Twin")]
    assert column(output_of(catalogue), "description") == [
        f"{who} says Twin" for who in ("moda", "livros", "bare") * 40
    ]


def test_a_changed_entry_writes_only_its_own_rows_anew(asked: Asked, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_with("department", "Moda", "Livros", "Casa", "Moda"))
    assert write(catalogue) == 4
    asked.clear()
    changed = {"column": "department", "values": {"Moda": "jardim", "Livros": "livros"}}
    assert write(catalogue, changed) == 2
    assert asked == [("jardim", "T0"), ("jardim", "T3")]
    assert writers(output_of(catalogue)) == ["jardim", "livros", "bare", "jardim"]
    # An entry more, and the table as it was: nothing that was written is written again.
    assert write(catalogue, {"column": "department", "values": {**TABLE["values"], "Casa": "jardim"}}) == 1
    assert write(catalogue) == 0
    assert writers(output_of(catalogue)) == ["moda", "livros", "bare", "moda"]


def test_the_default_adapter_writes_what_the_table_does_not_list(asked: Asked, tmp_path: Path) -> None:
    values = ("Moda", "moda", " Moda ", "<b>Moda</b>", "Livros &amp; Revistas", "", None, "none")
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_with("department", *values))
    table = {"column": "department", "values": {"Moda": "moda", "Livros & Revistas": "livros", "none": "none"}}
    write(catalogue, table, adapter="jardim")
    assert writers(output_of(catalogue)) == ["moda", "jardim", "moda", "moda", "livros", "jardim", "jardim", "bare"]


def test_an_empty_value_that_is_listed_is_not_null(asked: Asked, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_with("department", "", None, "x"))
    write(catalogue, {"column": "department", "values": {"": "moda"}})
    assert writers(output_of(catalogue)) == ["moda", "bare", "bare"]


@pytest.mark.parametrize(
    ("path", "cells", "values"),
    [
        ("place.floor", pa.array([{"floor": "1"}, {"floor": "2"}, {"floor": None}, None]), ("1", "2")),
        ("place.floor", pa.array([{"floor": 1}, {"floor": 2}, {"floor": 3}, None]), ("1", "2")),
        ("place", pa.array([7, 8, None, 9]), ("7", "8")),
        ("place", pa.array([True, False, None, None]), ("yes", "no")),
        ("place", pa.array(["a", "b", None, "c"]).dictionary_encode(), ("a", "b")),
        ("place.floor", None, ("1", "2")),
    ],
    ids=["nested", "nested number", "number", "boolean", "dictionary", "dotted name"],
)
def test_the_column_may_be_nested_and_of_any_type(
    asked: Asked, tmp_path: Path, path: str, cells: pa.Array | None, values: tuple[str, str]
) -> None:
    catalogue = tmp_path / "a.parquet"
    dotted = {"place.floor": ["1", "2", "3", None]} if cells is None else {"place": cells}
    pq.write_table(pa.table({"title": ["T0", "T1", "T2", "T3"], **dotted}), catalogue)
    write(catalogue, {"column": path, "values": dict(zip(values, ("moda", "livros"), strict=True))})
    assert writers(output_of(catalogue)) == ["moda", "livros", "bare", "bare"]


def test_a_folder_takes_a_pass_an_adapter_and_file(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        write_catalogue(tmp_path / "in" / f"{name}.jsonl", rows_with("department", "Moda", "Livros", "Moda"))
    write_catalogue(tmp_path / "in" / "c.jsonl", rows_with("section", "Moda"))
    report = enrich(tmp_path / "in", **sections())
    # The last file has no such column: that is its own matter.
    assert [summary.written for summary in report.summaries] == [3, 0, 0]
    assert report.status == 78
    assert "no column department for the adapters" in str(report.summaries[2].error)
    assert asked == [("livros", "T1"), ("moda", "T0"), ("moda", "T2")]


def test_a_value_said_twice_chooses_no_adapter(asked: Asked, tmp_path: Path) -> None:
    catalogue = tmp_path / "a.jsonl"
    catalogue.write_text('{"title": "T0", "department": "Moda", "department": "Livros"}\n{"title": "T1"}\n')
    write(catalogue, TABLE)
    found = [(row["enrich_status"], row["enrich_flags"]) for row in read_rows(output_of(catalogue))]
    assert found == [("rejected", ["duplicate_key"]), ("generated", [])]


def test_values_of_one_adapter_are_one_pass(asked: Asked, at_work: Path, tmp_path: Path) -> None:
    shutil.copytree(at_work / "moda", tmp_path / "twin")
    table = {"column": "department", "values": {"a": "moda", "b": "moda", "c": str(tmp_path / "twin"), "d": "none"}}
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_with("department", *"dcba"))
    write(catalogue, table)
    assert asked == [("bare", "T0"), ("moda", "T1"), ("moda", "T2"), ("moda", "T3")]
    authors = Authors.choose(load_settings(None, sections(table))).distinct
    assert [author.adapter and author.adapter.folder.name for author in authors] == [None, "moda"]


def test_the_footer_lists_every_adapter_and_whose_value_was_whose(asked: Asked, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_with("department", "Moda", "Casa"))
    table = {"column": "department", "values": {"Moda": "moda", "Livros": "livros", "Chão": "none"}}
    report = enrich(catalogue, **sections(table, adapter="jardim"))
    told = footer(output_of(catalogue))
    assert [each["name"] for each in told["adapters"]] == ["jardim", "livros", "moda"]
    digests = {each["name"]: each["digest"] for each in told["adapters"]}
    assert told["chosen_by"] == {
        "column": "department",
        "values": {"Chão": None, "Livros": digests["livros"], "Moda": digests["moda"]},
    }
    assert json.loads((report.folder / "summary.json").read_text())["adapters"] == told["adapters"]
    # The order of the entries is the operator's, and no part of the work.
    first = output_of(catalogue).read_bytes()
    assert write(catalogue, {**table, "values": dict(reversed(table["values"].items()))}, adapter="jardim") == 0
    assert output_of(catalogue).read_bytes() == first


def test_without_the_table_nothing_is_said_or_keyed_otherwise(asked: Asked, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_with("department", "Moda", "Casa"))
    write(catalogue, {}, "moda")
    plain = texts_in(tmp_path / ".enrich")
    assert footer(output_of(catalogue)).keys() == {"version", "base", "adapters", "template", "settings"}
    # The same rows by way of the table: the same keys.
    assert write(catalogue, {"column": "department", "values": {"Moda": "moda", "Casa": "moda"}}) == 0
    assert texts_in(tmp_path / ".enrich") == plain


def test_echo_takes_the_table_and_needs_no_adapter(at_work: Path, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_with("department", "Moda", "Casa"))
    table = {"column": "department", "values": {"Moda": "nowhere"}}
    enrich(catalogue, adapters=table)
    assert column(output_of(catalogue), "description") == ["T0", "T1"]
    assert footer(output_of(catalogue))["adapters"] == []
    with pytest.raises(SettingsError, match="no column section for the adapters"):
        enrich(catalogue, adapters={**table, "column": "section"})


# --- commands --------------------------------------------------------------------------------------------------------

CONFIG = """
[machine]
device = "cpu"
[text]
template = "{title}"
max_prompt_tokens = 16
[model]
base = "base"
adapter = "none"
[adapters]
column = "department"
[adapters.values]
"Moda" = "moda"
"""


@pytest.mark.usefixtures("own_log")
def test_prune_keeps_the_texts_of_every_adapter_in_use(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_with("department", "Moda", "Casa", "Livros"))
    config = tmp_path / "enrich.toml"
    config.write_text(CONFIG + '"Livros" = "livros"\n')
    arguments = ["--config", str(config), "--state", str(tmp_path / ".enrich")]
    assert main(["run", str(catalogue), *arguments]) == 0
    capsys.readouterr()
    assert main(["memory", "prune", *arguments]) == 0
    assert capsys.readouterr().out == "0 texts dropped\n"
    # The control: what an entry no longer names goes.
    config.write_text(CONFIG)
    assert main(["memory", "prune", *arguments]) == 0
    assert capsys.readouterr().out == "1 texts dropped\n"
    assert sorted(completion for _, completion, _ in texts_in(tmp_path / ".enrich").values()) == [
        "bare says T1",
        "moda says T0",
    ]


@pytest.mark.usefixtures("own_log")
def test_a_plan_counts_a_product_once_an_adapter(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"title": "w9", "description": None, "department": each} for each in ("Moda", "Casa", "Moda", None)]
    catalogue = write_catalogue(tmp_path / "a.parquet", rows)
    config = tmp_path / "enrich.toml"
    config.write_text(CONFIG)
    assert main(["plan", str(catalogue), "--config", str(config)]) == 0
    assert "2 duplicates, 0 already known, 2 to write" in capsys.readouterr().out
    assert main(["run", str(catalogue), "--config", str(config)]) == 0
    capsys.readouterr()
    assert main(["plan", str(catalogue), "--config", str(config)]) == 0
    assert "2 duplicates, 2 already known, 0 to write" in capsys.readouterr().out


# --- what does not fit together --------------------------------------------------------------------------------------


def test_an_adapter_of_another_base_or_template_is_refused_naming_both(asked: Asked, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_with("department", "Moda"))
    other = find_base(str(build_tiny(tmp_path / "other", seed=1)), tmp_path)
    shutil.copytree("moda", tmp_path / "stranger")
    stranger = record_training(tmp_path / "stranger", other, TEMPLATE)
    table = {"column": "department", "values": {"Moda": "moda", "Livros": str(stranger)}}
    with pytest.raises(SettingsError, match=f"{stranger}: trained on other .*, not on base "):
        write(catalogue, table)
    record_training(stranger, find_base("base", tmp_path), "<s>Describe {title}:")
    with pytest.raises(SettingsError, match=f"{stranger}: trained with template"):
        write(catalogue, table)
    assert write(catalogue, {**table, "values": {"Moda": "moda"}}) == 1


def test_an_adapter_that_is_not_there_is_told_before_anything_is_written(asked: Asked, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_with("department", "Moda"))
    with pytest.raises(ModelUnavailable, match="nowhere: no such adapter folder"):
        write(catalogue, {"column": "department", "values": {"Moda": "moda", "Livros": "nowhere"}})
    assert asked == []


def test_values_that_read_the_same_are_refused(asked: Asked, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "a.parquet", rows_with("department", "Moda"))
    with pytest.raises(SettingsError, match="read the same"):
        write(catalogue, {"column": "department", "values": {"Moda": "moda", " Moda": "livros"}})


@pytest.mark.parametrize(
    ("adapters", "told"),
    [
        ({"column": "department"}, "column department chooses among no adapters"),
        ({"values": {"Moda": "moda"}}, "values without a column"),
        ({"column": "department", "values": {"Moda": 3}}, "adapters.values.Moda"),
        ({"column": "department", "values": {"Moda": "moda"}, "default": "none"}, "adapters.default"),
    ],
)
def test_half_a_table_is_told_with_every_other_problem(adapters: Any, told: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings(None, {"adapters": adapters, "text": {"max_new_tokens": 0}})
    assert told in str(refusal.value)
    assert "text.max_new_tokens" in str(refusal.value)
