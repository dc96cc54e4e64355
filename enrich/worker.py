"""A worker: an author at work in a process of its own, fed with chunks of products, asked for what is finished.

It knows nothing of Ray, of catalogues and of the memory; `enrich.cluster` puts it on a card and listens to it.
"""

import os
import platform
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from enrich import __version__
from enrich.author import Author
from enrich.crew import Crew
from enrich.engine.adapter import Adapter, read_adapter
from enrich.engine.bases import Base, find_base
from enrich.errors import ModelUnavailable, SettingsError
from enrich.plan import Wanted
from enrich.settings import home
from enrich.writer import Finished, Writer

# How long a question for what is finished waits for it.
_PATIENCE_SECONDS = 2.0

T = TypeVar("T", Base, Adapter)

Files = Mapping[str, Mapping[str, bytes]]
"""The files of `base` and `adapter` by name, for a machine that has none of its own, or others."""


@dataclass(frozen=True)
class Told:
    """What finished since the last question; how many products were begun in all; the shapes that the engine stored;
    the device, once a model is loaded."""

    finished: list[Finished]
    begun: int
    shapes: dict[str, str]
    device: str | None
    node: str


@dataclass(frozen=True)
class _Task:
    chunk: list[Wanted]
    again: bool


class Worker:
    """Writes what it is fed. Whatever ends it is raised by `tell`."""

    def __init__(self, author: Author, version: str, shapes: Mapping[str, str], num_judges: int) -> None:
        self._author, self._version, self._num_judges = author, version, num_judges
        self._shapes = _Shapes(dict(shapes))
        self._inbox: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Finished | BaseException] = queue.SimpleQueue()
        self._writer: Writer | None = None
        self._next: _Task | None = None
        self._begun = 0

    def begin(self, files: Files | None = None) -> None:
        """Finds the model here, else makes it of `files`, and waits for chunks: in a thread of its own.

        Ends with `ModelUnavailable` when it is not the driver's model, `SettingsError` when the code is not.
        """
        threading.Thread(target=self._work, args=(files,), daemon=True).start()

    def feed(self, chunk: list[Wanted], *, again: bool) -> None:
        """Adds a chunk to what is to be written; `again` as in `Writer.write`."""
        self._inbox.put(_Task(chunk, again))

    def tell(self) -> Told:
        """Waits a while for something to finish."""
        finished: list[Finished] = []
        try:
            found = self._outbox.get(timeout=_PATIENCE_SECONDS)
            while True:
                if isinstance(found, BaseException):
                    raise found
                finished.append(found)
                found = self._outbox.get_nowait()
        except queue.Empty:
            pass
        device = self._writer.device if self._writer else None
        return Told(finished, self._begun, self._shapes.stored, device, f"{platform.node()} {os.getpid()}")

    def _work(self, files: Files | None) -> None:
        try:
            if self._version != __version__:
                raise SettingsError(f"{platform.node()}: has enrich {__version__}, the driver's is {self._version}")
            author = _on_this_machine(self._author, files)
            with Crew(self._num_judges) as crew:
                self._writer = Writer(author, self._shapes, lambda: False, crew)
                while True:
                    task = self._next or self._inbox.get()
                    self._next = None
                    for finished in self._writer.write(self._in_hand(task), lambda: True, again=task.again):
                        self._outbox.put(finished)
        except BaseException as error:
            self._outbox.put(error)

    def _in_hand(self, task: _Task) -> Iterator[Wanted]:
        """The products of a chunk and, as long as one waits already, of the next: the engine's slots stay full."""
        while True:
            for each in task.chunk:
                self._begun += 1
                yield each
            try:
                following = self._inbox.get_nowait()
            except queue.Empty:
                return
            if following.again != task.again:
                self._next = following
                return
            task = following


@dataclass
class _Shapes:
    """The shapes of this worker's engine; the driver keeps them."""

    stored: dict[str, str]

    def shape(self, name: str) -> str | None:
        return self.stored.get(name)

    def set_shape(self, name: str, value: str) -> None:
        self.stored = {**self.stored, name: value}


def files_of(author: Author) -> Files:
    """What a machine needs that has not the author's model. Reads whole models into memory."""
    folders = {"base": author.base and author.base.folder, "adapter": author.adapter and author.adapter.folder}
    return {
        what: {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
        for what, folder in folders.items()
        if folder
    }


def _on_this_machine(author: Author, files: Files | None) -> Author:
    if author.base is None:
        return author
    base = _same(author.base, "base", lambda folder: find_base(str(folder), home()), files)
    adapter = author.adapter and _same(author.adapter, "adapter", read_adapter, files)
    return replace(author, base=replace(base, name=author.base.name), adapter=adapter)


def _same(named: T, what: str, read: Callable[[Path], T], files: Files | None) -> T:
    """The driver's base or adapter as it lies in the same place here, else as it is made of `files`."""
    why = ""
    for folder in _places(named, what, files):
        try:
            found = read(folder)
        except ModelUnavailable as error:
            why = str(error)
            continue
        if found.digest == named.digest:
            return found
        why = f"{folder}: is {found.digest}, the driver's {named.digest}"
    raise ModelUnavailable(f"{platform.node()}: {why}")


def _places(named: Base | Adapter, what: str, files: Files | None) -> Iterator[Path]:
    yield named.folder
    if files is not None:
        yield _unpacked(files[what], Path(tempfile.gettempdir(), f"enrich-{named.digest}"))


def _unpacked(files: Mapping[str, bytes], place: Path) -> Path:
    """Once a machine, whole or not at all: workers that begin together, or one after the other, find it there."""
    if _is_ours(place):
        return place
    fresh = Path(tempfile.mkdtemp(prefix="enrich-"))
    for name, content in files.items():
        (fresh / name).write_bytes(content)
    try:
        return fresh.rename(place)
    except OSError:
        if not _is_ours(place):
            # Whoever made it could change it under our eyes.
            return fresh
        # Another worker was quicker.
        shutil.rmtree(fresh)
        return place


def _is_ours(place: Path) -> bool:
    return place.is_dir() and place.stat().st_uid == os.getuid()
