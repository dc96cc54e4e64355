"""From what the operator names (a file, a folder, a glob, a remote address) to inputs and their outputs."""

import glob
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from enrich import durable
from enrich.catalog.publish import FOOTER
from enrich.errors import CatalogueError, EnrichError, IOFailure, NoInput, UsageError

log = logging.getLogger("enrich")

_PACKED = {".gz", ".zst"}
_CATALOGUES = {".parquet", ".pq", ".json", ".jsonl", ".ndjson"}


@dataclass(frozen=True, slots=True)
class Source:
    """One catalogue and where its enriched form goes. `address` is a local path or a URL."""

    address: str
    output: Path

    @property
    def is_remote(self) -> bool:
        return _is_remote(self.address)

    @property
    def shown(self) -> str:
        """The address as reports and messages have it."""
        return without_password(self.address)

    @contextmanager
    def local(self, folder: Path) -> Iterator[Path]:
        """The catalogue as a local file; a remote one is copied into `folder` for as long as it is used."""
        if not self.is_remote:
            yield Path(self.address)
            return
        copy = folder / self.address.rsplit("/", 1)[-1]
        try:
            _fetch(self.address, copy)
            yield copy
        finally:
            durable.discard(copy)


@dataclass(frozen=True, slots=True)
class Selection:
    """The catalogues behind one name, in sorted order; `output` is the file or folder that all of it becomes."""

    sources: list[Source]
    output: Path


def find_sources(named: str, output: Path | None) -> Selection:
    """The catalogues behind `named`, each with its output.

    A folder or a glob gives a folder of outputs, and our own former outputs in it are skipped. Raises
    `NoInput`, `UsageError` when an output would replace its input or another output, `CatalogueError` when
    one file is met twice.
    """
    if _is_remote(named):
        selection = _remote_sources(named, output)
    elif glob.has_magic(named) and not Path(named).exists():
        found = [Path(path) for path in glob.glob(named, recursive=True)]  # noqa: PTH207  may be absolute
        selection = _folder_sources(named, _fixed_part(named), found, output)
    elif Path(named).is_dir():
        selection = _folder_sources(named, Path(named), list(Path(named).rglob("*")), output)
    elif not os.path.lexists(named):
        raise NoInput(f"{named}: no such file, folder or glob")
    else:
        output = output or default_output(Path(named))
        selection = Selection([Source(named, output)], output)
    _check(selection.sources)
    return selection


def default_output(source: Path) -> Path:
    """The input with its suffixes replaced by `.enriched.parquet`."""
    return source.with_name(_stem(source.name) + ".enriched.parquet")


def _stem(name: str) -> str:
    path = Path(name)
    if path.suffix.lower() in _PACKED:
        path = path.with_suffix("")
    return path.stem


def without_password(said: str) -> str:
    """What is said, whose addresses name neither user nor password any more: reports and logs are read by many."""
    return re.sub(r"(?<=://)[^/\s]*@", "", said)


def _is_remote(named: str) -> bool:
    return "://" in named


def _fixed_part(pattern: str) -> Path:
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def _folder_sources(named: str, root: Path, found: list[Path], output: Path | None) -> Selection:
    root_name = root.resolve()
    folder = output or root_name.with_name(f"{root_name.name}.enriched")
    sources = []
    for path in sorted(path for path in found if path.is_file()):
        place = path.relative_to(root)
        if any(part.startswith((".", "_")) for part in place.parts) or not _looks_like_catalogue(path):
            log.info("%s: skipped, not a catalogue by its name", path)
        elif _is_our_output(path):
            log.info("%s: skipped, it is our own output", path)
        else:
            sources.append(Source(str(path), folder / default_output(place)))
    if not sources:
        raise NoInput(f"{named}: no catalogue in it")
    return Selection(sources, folder)


def _looks_like_catalogue(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in _CATALOGUES and not path.name.endswith(".quarantine.jsonl")


def _is_our_output(path: Path) -> bool:
    try:
        return path.suffix == ".parquet" and FOOTER in (pq.read_schema(path).metadata or {})
    except (OSError, ValueError):
        return False


def _check(sources: list[Source]) -> None:
    inputs: dict[Path, str] = {}
    outputs: dict[Path, str] = {}
    for source in sources:
        output = source.output.resolve()
        if output in outputs:
            raise UsageError(f"{source.shown} and {outputs[output]} would both become {source.output}")
        outputs[output] = source.shown
        if source.is_remote:
            continue
        # Path.resolve() raises for a link to itself; realpath leaves that to whoever opens it.
        path = Path(os.path.realpath(source.address))
        if path == output or (output.exists() and path.exists() and path.samefile(output)):
            raise UsageError(f"{source.address}: the output would replace the input; name another --output")
        if path in inputs:
            raise CatalogueError(f"{source.address}: the same file as {inputs[path]}", "listed_twice")
        inputs[path] = source.address


def _remote_sources(named: str, output: Path | None) -> Selection:
    file_system, path = _file_system(named)
    with _remote_reading(named):
        if not file_system.isdir(path):
            output = output or default_output(Path(path.rsplit("/", 1)[-1]))
            return Selection([Source(named, output)], output)
        found = sorted(each for each in file_system.find(path) if _looks_like_catalogue(Path(each)))
    if not found:
        raise NoInput(f"{without_password(named)}: no catalogue in it")
    folder = output or Path(path.rstrip("/").rsplit("/", 1)[-1] + ".enriched")
    prefix = named.rstrip("/")
    places = [each.removeprefix(path.rstrip("/")).lstrip("/") for each in found]
    if climbing := next((place for place in places if ".." in Path(place).parts), None):
        place = without_password(f"{prefix}/{climbing}")
        raise CatalogueError(f"{place}: its name would lead its output elsewhere; rename it", "climbs")
    sources = [Source(f"{prefix}/{place}", folder / default_output(Path(place))) for place in places]
    return Selection(sources, folder)


def _file_system(address: str) -> tuple[Any, str]:
    """s3 and gs through Arrow, which brings them along; everything else through fsspec."""
    import fsspec
    import pyarrow.fs
    from fsspec.implementations.arrow import ArrowFSWrapper

    try:
        if address.startswith(("s3://", "gs://")):
            file_system, path = pyarrow.fs.FileSystem.from_uri(address)
            return ArrowFSWrapper(file_system), path
        file_system, path = fsspec.core.url_to_fs(address)
    except (ValueError, ImportError, pa.ArrowException) as error:
        raise UsageError(without_password(f"{address}: {error}")) from None
    return file_system, path


def _fetch(address: str, copy: Path) -> None:
    file_system, path = _file_system(address)
    durable.discard(copy)
    with _remote_reading(address), file_system.open(path, "rb") as remote, copy.open("wb") as local:
        shutil.copyfileobj(remote, local, 1 << 20)


@contextmanager
def _remote_reading(address: str) -> Iterator[None]:
    try:
        yield
    except EnrichError:
        raise
    except FileNotFoundError:
        raise NoInput(f"{without_password(address)}: no such object") from None
    except Exception as error:
        said = f"{address}: cannot be fetched: {' '.join(str(error).split())[:300]}"
        raise IOFailure(without_password(said)) from error
