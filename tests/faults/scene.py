"""A catalogue, what was published of it before, and what must come of it, whatever befalls a run in between."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.faults.ledger import Ledger
from tests.killing import Nursery
from tests.runs import read_rows

FULL = os.environ.get("FAULTS") == "full"
ECHO = ("--engine", "echo")
# Most records are good, some miss their description, two cannot be described, one is none.
_LINES = [
    *(
        json.dumps({"id": n, "title": f"Product {n}", "description": None if n % 2 else f"Text {n}."})
        for n in range(24)
    ),
    '{"id": 24, "title": "", "description": null}',
    '{"id": 25, "title": "Cut off',
]

T = TypeVar("T")


def some(cases: Sequence[T], count: int) -> list[T]:
    """All cases in `make test-faults`; else about `count`, evenly spread, the first and the last among them."""
    if FULL or len(cases) <= count:
        return list(cases)
    return [cases[round(at * (len(cases) - 1) / (count - 1))] for at in range(count)] if count > 1 else [*cases[:1]]


@dataclass(frozen=True)
class Scene:
    """A folder to run in. `former` is what the run finds published, `right` what it must publish."""

    nursery: Nursery
    folder: Path
    former: bytes
    right: "dict[str, bytes]" = field(repr=False)

    @classmethod
    def first(cls, nursery: Nursery, folder: Path) -> "Scene":
        """Makes the catalogue, has a smaller one published where its output will be, and runs it undisturbed."""
        folder.mkdir()
        catalogue = folder / "catalogue.jsonl"
        scene = cls(nursery, folder, b"", {})
        catalogue.write_text("\n".join(_LINES[:10]) + "\n")
        assert scene.run() == 0
        former = scene.output.read_bytes()
        catalogue.write_text("\n".join(_LINES) + "\n")
        shutil.rmtree(scene.state)
        whole = scene.again()
        assert whole.run() == 0, whole.log.read_text()
        return cls(nursery, folder, former, whole.published())

    def again(self) -> "Scene":
        """The same, not run yet, always at the same place: what a run calls its files follows from it."""
        folder = self.folder.with_name("scene")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        (folder / "log").unlink(missing_ok=True)
        return Scene(self.nursery, folder, self.former, self.right)

    def on(self, disk: Path) -> "Scene":
        """The same on another file system."""
        folder = disk / "scene"
        shutil.copytree(self.folder, folder)
        return Scene(self.nursery, folder, self.former, self.right)

    @property
    def catalogue(self) -> Path:
        return self.folder / "catalogue.jsonl"

    @property
    def output(self) -> Path:
        return self.folder / "catalogue.enriched.parquet"

    @property
    def quarantine(self) -> Path:
        return self.folder / "catalogue.enriched.parquet.quarantine.jsonl"

    @property
    def state(self) -> Path:
        return self.folder / ".enrich"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def arguments(self) -> tuple[str | Path, ...]:
        return ("run", self.catalogue, *ECHO)

    def run(self, **orders: object) -> int:
        return self.nursery.run(*self.arguments, log=self.log, **orders)

    def published(self) -> dict[str, bytes]:
        """The files beside the catalogue that a run makes, by name."""
        return {path.name: path.read_bytes() for path in (self.output, self.quarantine) if path.exists()}

    def assert_old_or_new(self, status: int) -> None:
        """The output is the former or the right one, whole; and the right one where the run claims so."""
        assert self.output.read_bytes() in ([] if status == 0 else [self.former]) + [self.right[self.output.name]]

    def assert_recovers(self, ledger: Ledger, kind: str, fired: int) -> None:
        """Run again, all is as if nothing had happened: the bytes, every row, and nothing left over."""
        status = self.run()
        assert status == 0, self.log.read_text()
        lost = len(read_rows_of(self.right[self.output.name], self.folder)) - len(read_rows(self.output))
        ledger.add(kind, fired=fired, survived=fired, lost=lost)
        assert self.published() == self.right
        assert list(self.leftovers()) == []
        shutil.rmtree(self.folder)

    def leftovers(self) -> Iterator[Path]:
        # A report is of one run: what a killed one began of it nobody goes on with.
        yield from (path for path in self.folder.rglob(".*.tmp") if "reports" not in path.parts)


def read_rows_of(content: bytes, folder: Path) -> list[dict[str, object]]:
    path = folder / "right.parquet"
    path.write_bytes(content)
    rows = read_rows(path)
    path.unlink()
    return rows
