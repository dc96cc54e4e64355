"""When a night ends: a deadline, a budget, a number of products; and what comes first in it."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich import limits as limits_module
from enrich.engine.protocol import Completion, Request
from enrich.errors import SettingsError
from enrich.limits import Limits, seconds_until
from enrich.plan import Share, Wanted
from enrich.priority import largest_first
from enrich.products import Product
from enrich.settings import load_settings

from .runs import InPlaceOfEcho, column, enrich, output_of, read_rows, rows_of, said_in, write_catalogue


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(limits_module, "time", clock)
    return clock


class Ticking(InPlaceOfEcho):
    """The echo engine, for which every text takes a second."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.asked = clock, list[str]()

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            self.asked.append(said_in(request))
            self.clock.now += 1
            yield Completion(request.key, tuple(self.asked[-1].encode()), "eos")


@pytest.fixture
def engine(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Ticking:
    engine = Ticking(clock)
    monkeypatch.setattr("enrich.writer.EchoGenerator", engine)
    return engine


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Ten rows miss their description."""
    return write_catalogue(tmp_path / "catalog.parquet", rows_of(20))


def test_a_number_of_products_is_written_the_rest_waits_for_the_next_night(catalogue: Path, engine: Ticking) -> None:
    report = enrich(catalogue, night={"max_rows": 4})
    assert (report.status, report.summaries[0].written) == (6, 4)
    assert json.loads((report.folder / "summary.json").read_text())["stopped_by"] == "max_rows"
    assert column(output_of(catalogue), "enrich_status").count("pending") == 6
    report = enrich(catalogue, night={"max_rows": 6})
    assert (report.status, len(engine.asked), len(set(engine.asked))) == (0, 10, 10)
    assert json.loads((report.folder / "summary.json").read_text())["stopped_by"] is None


def test_no_product_at_all_loads_no_model_and_publishes(catalogue: Path, engine: Ticking) -> None:
    assert enrich(catalogue, night={"max_rows": 0}).status == 6
    assert engine.asked == []
    assert column(output_of(catalogue), "enrich_status").count("pending") == 10


def test_further_attempts_are_no_further_products(catalogue: Path, engine: Ticking) -> None:
    never = {"forbidden": {"*": ["product"]}, "retries": 2}
    report = enrich(catalogue, night={"max_rows": 2}, quality=never)
    assert (report.status, len(engine.asked), len(set(engine.asked))) == (6, 6, 2)
    assert column(output_of(catalogue), "enrich_status").count("held") == 2


def test_a_budget_buys_so_many_seconds(catalogue: Path, engine: Ticking) -> None:
    report = enrich(catalogue, machine={"gpu_hour_price": 3600.0}, night={"budget": 5.0})
    assert (report.status, len(engine.asked)) == (6, 5)
    told = json.loads((report.folder / "summary.json").read_text())
    assert (told["stopped_by"], told["cost"]) == ("budget", round(told["seconds"], 4))


def test_a_budget_needs_a_price() -> None:
    with pytest.raises(SettingsError, match="gpu_hour_price"):
        load_settings(None, {"night": {"budget": 5.0}})


@pytest.mark.parametrize("deadline", ["24:00", "6:00", "06:60", "noon", "06:00:00"])
def test_a_deadline_is_a_time_of_day(deadline: str) -> None:
    with pytest.raises(SettingsError, match=r"night\.deadline"):
        load_settings(None, {"night": {"deadline": deadline}})


@pytest.mark.parametrize(
    ("deadline", "now", "hours"),
    [("06:00", "2026-11-26 22:00", 8), ("06:00", "2026-11-26 05:00", 1), ("06:00", "2026-11-26 06:00", 24)],
)
def test_a_deadline_is_the_next_such_time(deadline: str, now: str, hours: float) -> None:
    assert seconds_until(deadline, datetime.fromisoformat(now)) == hours * 3600


def test_a_deadline_leaves_time_to_publish(clock: Clock) -> None:
    limits = Limits({"deadline": clock.now + 100})
    limits.leave(50)
    clock.now += 39
    assert limits.allow()
    clock.now += 2
    assert not limits.allow()
    assert limits.stopped_by == "deadline"


def test_a_night_whose_deadline_has_come_publishes_what_is_known(
    catalogue: Path, engine: Ticking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits_module, "seconds_until", lambda *_: 3.5)
    report = enrich(catalogue, night={"deadline": "06:00"})
    assert (report.status, len(engine.asked)) == (6, 4)
    statuses = column(output_of(catalogue), "enrich_status")
    assert (statuses.count("generated"), statuses.count("pending")) == (4, 6)


# Priority


def test_the_largest_values_are_written_first_and_those_without_one_last(tmp_path: Path, engine: Ticking) -> None:
    stock = [3, None, 9, 1, 9]
    rows = [{"title": f"Row {at}", "description": None, "more": {"stock": number}} for at, number in enumerate(stock)]
    catalogue = write_catalogue(tmp_path / "catalog.parquet", rows)
    enrich(catalogue, night={"priority": "more.stock"})
    assert engine.asked == ["Row 2", "Row 4", "Row 0", "Row 3", "Row 1"]
    assert [row["description"] for row in read_rows(output_of(catalogue))] == [f"Row {at}" for at in range(5)]


def test_the_order_decides_no_byte(tmp_path: Path) -> None:
    rows = [{**row, "stock": -at} for at, row in enumerate(rows_of(200))]
    outputs = []
    for name, night in (("plain", {}), ("ordered", {"priority": "stock"})):
        (tmp_path / name).mkdir()
        catalogue = write_catalogue(tmp_path / name / "catalog.parquet", rows)
        enrich(catalogue, night=night)
        outputs.append(output_of(catalogue).read_bytes())
    assert outputs[0] == outputs[1]


def test_a_column_that_is_not_there_is_told(catalogue: Path) -> None:
    with pytest.raises(SettingsError, match="no column stock for the priority"):
        enrich(catalogue, night={"priority": "stock"})


def test_a_product_that_comes_twice_is_written_once_at_its_larger_value(tmp_path: Path, engine: Ticking) -> None:
    rows = [
        {"title": title, "description": None, "stock": stock}
        for title, stock in [("A", 1), ("B", 5), ("A", 9), ("C", 7)]
    ]
    enrich(write_catalogue(tmp_path / "catalog.parquet", rows), night={"priority": "stock"})
    assert engine.asked == ["A", "C", "B"]


VALUES = st.one_of(
    st.none(), st.integers(), st.floats(), st.booleans(), st.decimals(allow_nan=False, allow_infinity=False)
)


@given(st.lists(VALUES, max_size=30))
def test_the_order_is_that_of_the_numbers(values: list[Any]) -> None:
    def share(first: int, some: list[Any]) -> Share:
        keys = [(first + at).to_bytes(4, "big") for at in range(len(some))]
        wanted = [Wanted(key, Product("x")) for key in keys]
        return Share(len(some), len(some), 0, wanted, dict(zip(keys, some, strict=True)))

    def size(value: Any) -> float:
        return float("-inf") if value is None or value != value else float(value)

    found = [int.from_bytes(each.key, "big") for each in largest_first([share(0, values[:7]), share(7, values[7:])])]
    has_value = [at for at in found if values[at] is not None and values[at] == values[at]]
    assert sorted(found) == list(range(len(values)))
    assert found[: len(has_value)] == has_value
    assert [size(values[at]) for at in has_value] == sorted((size(values[at]) for at in has_value), reverse=True)
