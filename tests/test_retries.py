"""What may not be published is tried again, the best attempt is kept, and only then is the row held."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from enrich.engine.protocol import Completion, Figures, Request

from .runs import InPlaceOfEcho, column, enrich, output_of, said_in, write_catalogue

BANNED = {"quality": {"forbidden": {"*": ["black"]}, "retries": 2}}
TITLES = ["Black Mug", "Red Mug", "Black Lamp", "Green Lamp", "Black Mug"]


Answers = dict[tuple[str, int], str | None]


class ByAttempt(InPlaceOfEcho):
    """Answers with what a table says of a title's attempt (None: it fails); a title that is not in it with itself."""

    batch_rows = 2

    def __init__(self, answers: Answers | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[tuple[str, int]] = []

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            title = said_in(request)
            self.asked.append((title, request.attempt))
            text = self.answers.get((title, request.attempt), title)
            yield Completion(request.key, tuple((text or "").encode()), "failed" if text is None else "eos")


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    rows = [{"id": str(at), "title": title, "description": None} for at, title in enumerate(TITLES)]
    return write_catalogue(tmp_path / "catalog.parquet", rows)


def listen(monkeypatch: pytest.MonkeyPatch, answers: Answers | None = None) -> ByAttempt:
    engine = ByAttempt(answers)
    monkeypatch.setattr("enrich.writer.EchoGenerator", engine)
    return engine


def attempts(catalogue: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(catalogue.parent / ".enrich" / "memory.sqlite")) as memory:
        return sorted(memory.execute("SELECT completion, attempt FROM text"))


def fates(catalogue: Path) -> list[tuple[Any, Any, Any]]:
    output = output_of(catalogue)
    return list(zip(*(column(output, name) for name in ("description", "enrich_status", "enrich_flags")), strict=True))


def test_a_text_that_may_not_be_published_is_tried_again_then_held(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = listen(monkeypatch)
    report = enrich(catalogue, **BANNED)
    asked = [("Black Mug", 0), ("Red Mug", 0), ("Black Lamp", 0), ("Green Lamp", 0)]
    again = [(title, attempt) for attempt in (1, 2) for title in ("Black Mug", "Black Lamp")]
    assert engine.asked == asked + again
    held = (None, "held", ["forbidden_claim"])
    assert fates(catalogue) == [held, ("Red Mug", "generated", []), held, ("Green Lamp", "generated", []), held]
    assert report.summaries[0].written == len(engine.asked)
    # Another night has nothing to do.
    before = output_of(catalogue).read_bytes()
    assert enrich(catalogue, **BANNED).summaries[0].written == 0
    assert len(engine.asked) == len(asked + again)
    assert output_of(catalogue).read_bytes() == before


class Counting(ByAttempt):
    """As the grid does, it counts from nothing with each call of `generate`."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        self.figures = Figures()
        for completion in super().generate(requests):
            self.figures += Figures(tokens=len(completion.ids), slot_steps=2 * len(completion.ids))
            yield completion


def test_the_tokens_of_every_attempt_are_counted_once(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Counting()
    monkeypatch.setattr("enrich.writer.EchoGenerator", engine)
    (summary,) = enrich(catalogue, **BANNED).summaries
    assert {attempt for _, attempt in engine.asked} == {0, 1, 2}
    assert summary.tokens == sum(len(title) for title, _ in engine.asked)
    assert summary.engine == Figures(tokens=summary.tokens, slot_steps=2 * summary.tokens)


def test_the_first_attempt_that_may_be_published_is_the_last(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = listen(monkeypatch, {("Black Mug", 1): "A mug", ("Black Lamp", 2): "A lamp"})
    enrich(catalogue, **BANNED)
    assert [text for text, _, _ in fates(catalogue)] == ["A mug", "Red Mug", "A lamp", "Green Lamp", "A mug"]
    assert ("Black Mug", 2) not in engine.asked


def test_of_texts_that_may_not_be_published_the_best_is_shown(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections: dict[str, Any] = {"quality": {"forbidden": {"*": ["black"]}, "min_chars": 10, "retries": 2}}
    listen(monkeypatch, {("Black Lamp", 0): "Black", ("Black Lamp", 1): "Black Lamp", ("Black Lamp", 2): "Black"})
    enrich(catalogue, **sections)
    output = output_of(catalogue)
    assert column(output, "enrich_flags")[2] == ["forbidden_claim"]
    assert column(output, "enrich_score")[2] == 30


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_as_often_as_is_allowed(catalogue: Path, monkeypatch: pytest.MonkeyPatch, retries: int) -> None:
    engine = listen(monkeypatch)
    enrich(catalogue, quality={**BANNED["quality"], "retries": retries})
    assert [attempt for title, attempt in engine.asked if title == "Black Lamp"] == list(range(retries + 1))
    # More are allowed later: only those are made.
    enrich(catalogue, quality={**BANNED["quality"], "retries": retries + 1})
    assert [attempt for title, attempt in engine.asked if title == "Black Lamp"] == list(range(retries + 2))


def test_a_policy_that_holds_tries_nothing_again(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = listen(monkeypatch)
    enrich(catalogue, quality={**BANNED["quality"], "actions": {"forbidden_claim": "hold"}})
    assert {attempt for _, attempt in engine.asked} == {0}
    assert column(output_of(catalogue), "enrich_status").count("held") == 3


def test_a_changed_policy_costs_no_text_and_reaches_every_row(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = listen(monkeypatch)
    enrich(catalogue, **BANNED)
    asked = len(engine.asked)
    report = enrich(catalogue, quality={"forbidden": {"*": ["green"]}, "retries": 0})
    assert (report.summaries[0].written, len(engine.asked)) == (0, asked)
    assert [status for _, status, _ in fates(catalogue)] == ["generated", "generated", "generated", "held", "generated"]
    assert fates(catalogue)[0] == ("Black Mug", "generated", [])


def test_half_the_attempts_and_the_rest_give_the_bytes_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken off after each number of texts and gone on with: the same file, and no attempt made twice."""
    answers: Answers = {("Black Mug", 2): "A mug"}
    rows = [{"id": str(at), "title": title, "description": None} for at, title in enumerate(TITLES)]
    (tmp_path / "whole").mkdir()
    whole = write_catalogue(tmp_path / "whole" / "catalog.parquet", rows)
    engine = listen(monkeypatch, answers)
    enrich(whole, **BANNED)
    for broken_after in range(len(engine.asked)):
        folder = tmp_path / str(broken_after)
        folder.mkdir()
        catalogue = write_catalogue(folder / "catalog.parquet", rows)
        breaking = listen(monkeypatch, answers)

        def generate(requests: Iterable[Request], breaking: ByAttempt = breaking, last: int = broken_after) -> Any:
            for completion in ByAttempt.generate(breaking, requests):
                if len(breaking.asked) > last:
                    raise RuntimeError("broken off")
                yield completion

        monkeypatch.setattr(breaking, "generate", generate)
        with pytest.raises(RuntimeError, match="broken off"):
            enrich(catalogue, **BANNED)
        listen(monkeypatch, answers)
        enrich(catalogue, **BANNED)
        assert output_of(catalogue).read_bytes() == output_of(whole).read_bytes()
        assert attempts(catalogue) == attempts(whole)


@pytest.mark.parametrize("others", [[], ["Black Lamp"]])
def test_a_retry_that_failed_is_the_last_whatever_becomes_of_other_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[str]
) -> None:
    rows = [{"id": title, "title": title, "description": None} for title in ["Black Mug", *others]]
    catalogue = write_catalogue(tmp_path / "catalog.parquet", rows)
    engine = listen(monkeypatch, {("Black Mug", 1): None, ("Black Mug", 2): "A mug"})
    enrich(catalogue, **BANNED)
    assert ("Black Mug", 2) not in engine.asked
    assert (("Black Lamp", 2) in engine.asked) is bool(others)
    assert fates(catalogue)[0] == (None, "held", ["forbidden_claim"])


# --- rows of an earlier run ---------------------------------------------------------------------------------------


def test_held_rows_are_reworked_with_further_attempts_and_nothing_else(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = listen(monkeypatch, {("Black Lamp", 3): "A lamp"})
    enrich(catalogue, **BANNED)
    engine.asked.clear()
    rows = [{"id": str(at), "title": title, "description": None} for at, title in enumerate([*TITLES, "New Mug"])]
    write_catalogue(catalogue, rows)
    enrich(catalogue, retry="held", **BANNED)
    assert engine.asked == [("Black Mug", 3), ("Black Lamp", 3), ("Black Mug", 4)]
    assert [status for _, status, _ in fates(catalogue)] == [
        "held",
        "generated",
        "generated",
        "generated",
        "held",
        "pending",
    ]
    assert fates(catalogue)[2][0] == "A lamp"


def test_rejected_rows_are_tried_once_more(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = listen(monkeypatch, dict.fromkeys([("Red Mug", 0), ("Green Lamp", 0), ("Green Lamp", 1)]))
    enrich(catalogue)
    assert column(output_of(catalogue), "enrich_status") == [
        "generated",
        "rejected",
        "generated",
        "rejected",
        "generated",
    ]
    engine.asked.clear()
    # A plain night leaves them alone.
    enrich(catalogue)
    assert engine.asked == []
    enrich(catalogue, retry="rejected")
    assert engine.asked == [("Red Mug", 1), ("Green Lamp", 1)]
    assert column(output_of(catalogue), "enrich_status") == [
        "generated",
        "generated",
        "generated",
        "rejected",
        "generated",
    ]
