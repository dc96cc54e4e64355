"""Publishing under faults: the final name holds the old complete file or the new complete one, never less."""

import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from enrich.catalog import proof, publish, read
from enrich.errors import CatalogueError, EnrichError, IOFailure

from .runs import enrich, output_of, rows_of, write_catalogue

FORMER = b"what was published before"


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """A catalogue whose texts are all remembered, beside an output of an earlier night."""
    source = write_catalogue(tmp_path / "catalog.parquet", rows_of(400), row_group_rows=50)
    assert enrich(source).status == 0
    output_of(source).write_bytes(FORMER)
    return source


def expect_former(source: Path, error: type[EnrichError], match: str | None = None) -> None:
    with pytest.raises(error, match=match):
        enrich(source)
    assert output_of(source).read_bytes() == FORMER
    assert not [path.name for path in source.parent.glob(".*.tmp")]


def expect_whole(source: Path) -> None:
    """The fault over, the next run publishes."""
    assert enrich(source).status == 0
    assert pq.read_metadata(output_of(source)).num_rows == 400


def failing(function: Callable[..., Any], error: BaseException, at_call: int = 1) -> Callable[..., Any]:
    """`function`, but for one call; writers of anything but the output do not count."""
    calls = 0

    def fail_once(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += not (isinstance(given[0], pq.ParquetWriter) and "enrich_status" not in given[0].schema.names)
        if calls == at_call:
            calls += 1
            raise error
        return function(*given, **named)

    return fail_once


@pytest.mark.parametrize("at_call", [1, 2])
def test_a_full_disk_while_writing(catalogue: Path, monkeypatch: pytest.MonkeyPatch, at_call: int) -> None:
    monkeypatch.setattr(publish, "_GROUP_ROWS", 100)
    monkeypatch.setattr(read, "batch_rows_of", lambda _: 50)
    with monkeypatch.context() as fault:
        write = failing(pq.ParquetWriter.write_table, OSError(28, "No space left on device"), at_call)
        fault.setattr(pq.ParquetWriter, "write_table", write)
        expect_former(catalogue, IOFailure, "No space left")
    expect_whole(catalogue)


def test_a_writer_that_cannot_close(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pq.ParquetWriter.close

    def close(self: pq.ParquetWriter) -> None:
        was_open = self.is_open
        real(self)
        if was_open and "enrich_status" in self.schema.names:
            raise OSError(5, "Input/output error")

    with monkeypatch.context() as fault:
        fault.setattr(pq.ParquetWriter, "close", close)
        expect_former(catalogue, IOFailure, "Input/output error")
    expect_whole(catalogue)


def test_an_exception_in_the_middle_leaves_no_short_file(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_GROUP_ROWS", 100)
    monkeypatch.setattr(read, "batch_rows_of", lambda _: 50)
    with monkeypatch.context() as fault:
        fault.setattr(publish, "_fill", failing(publish._fill, RuntimeError("a bug"), at_call=5))
        with pytest.raises(RuntimeError, match="a bug"):
            enrich(catalogue)
    assert output_of(catalogue).read_bytes() == FORMER
    assert not list(catalogue.parent.glob(".*.tmp"))
    expect_whole(catalogue)


def test_a_writer_is_not_closed_while_it_writes(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow would end the process there; an exception may come while another thread encodes."""
    monkeypatch.setattr(publish, "_GROUP_ROWS", 100)
    monkeypatch.setattr(read, "batch_rows_of", lambda _: 50)
    real_write, real_close = pq.ParquetWriter.write_table, pq.ParquetWriter.close
    events: list[str] = []
    reached = threading.Event()

    def is_ours(writer: pq.ParquetWriter) -> bool:
        return "enrich_status" in writer.schema.names

    def write(self: pq.ParquetWriter, *given: Any, **named: Any) -> None:
        if is_ours(self):
            reached.wait(10)
            # Long enough for a close that does not wait.
            time.sleep(0.2)
            events.append("written")
        real_write(self, *given, **named)

    def close(self: pq.ParquetWriter) -> None:
        if self.is_open and is_ours(self):
            events.append("closed")
        real_close(self)

    def fill(*given: Any) -> None:
        reached.set()
        raise RuntimeError("a bug")

    with monkeypatch.context() as fault:
        fault.setattr(pq.ParquetWriter, "write_table", write)
        fault.setattr(pq.ParquetWriter, "close", close)
        fault.setattr(publish, "_fill", _after(2, publish._fill, fill))
        with pytest.raises(RuntimeError, match="a bug"):
            enrich(catalogue)
    assert events == ["written", "closed"]
    assert output_of(catalogue).read_bytes() == FORMER


def _after(calls: int, function: Callable[..., Any], then: Callable[..., Any]) -> Callable[..., Any]:
    """`function` for so many calls, and `then` for the rest."""
    made = itertools.count()
    return lambda *given: (function if next(made) < calls else then)(*given)


@pytest.mark.parametrize("at_share", [at / 20 for at in range(20)])
def test_a_byte_that_turned_on_the_disk(catalogue: Path, monkeypatch: pytest.MonkeyPatch, at_share: float) -> None:
    def turn_a_byte(path: Path, *given: Any) -> None:
        content = bytearray(path.read_bytes())
        content[int(len(content) * at_share)] ^= 0x40
        path.write_bytes(content)
        proof.prove_written(path, *given)

    with monkeypatch.context() as fault:
        fault.setattr(publish, "prove_written", turn_a_byte)
        expect_former(catalogue, EnrichError)
    expect_whole(catalogue)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda table: table.slice(0, 399), "399 rows read back, 400 written"),
        (lambda table: table.take([1, 0, *range(2, 400)]), "column id"),
        (lambda table: table.set_column(0, "id", table["title"]), "column id"),
        (lambda table: table.drop_columns(["id"]), "schema"),
    ],
)
def test_a_whole_file_that_is_another(catalogue: Path, monkeypatch: pytest.MonkeyPatch, change: Any, told: str) -> None:
    def replace_it(path: Path, *given: Any) -> None:
        table = pq.ParquetFile(path).read()
        changed = change(table)
        metadata = table.schema.metadata
        pq.write_table(changed.replace_schema_metadata(metadata), path, use_compliant_nested_type=False)
        proof.prove_written(path, *given)

    with monkeypatch.context() as fault:
        fault.setattr(publish, "prove_written", replace_it)
        expect_former(catalogue, IOFailure, told)


def _append(source: Path) -> None:
    table = pq.ParquetFile(source).read()
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), source)


def _edit_in_secret(source: Path) -> None:
    """Another byte, the same size, the same times."""
    times = source.stat()
    content = bytearray(source.read_bytes())
    content[6] ^= 1
    source.write_bytes(content)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))


def _replace(source: Path) -> None:
    other = write_catalogue(source.with_name("other.parquet"), rows_of(400, first=1000))
    other.replace(source)


@pytest.mark.parametrize("change", [_append, _edit_in_secret, _replace, lambda source: os.truncate(source, 500)])
def test_an_input_that_changes_after_it_was_read(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    prove = proof.prove_written

    def change_then_prove(*given: Any) -> None:
        change(catalogue)
        prove(*given)

    with monkeypatch.context() as fault:
        fault.setattr(publish, "prove_written", change_then_prove)
        expect_former(catalogue, CatalogueError, "changed while it was read")


def test_a_json_input_that_changes_after_it_was_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_catalogue(tmp_path / "catalog.jsonl", rows_of(20))
    prove = proof.prove_written

    def append_then_prove(*given: Any) -> None:
        with source.open("a") as lines:
            lines.write('{"title": "late"}\n')
        prove(*given)

    with monkeypatch.context() as fault:
        fault.setattr(publish, "prove_written", append_then_prove)
        with pytest.raises(CatalogueError, match="changed"):
            enrich(source)
    assert not output_of(source).exists()
    assert enrich(source).status == 0
    assert pq.read_metadata(output_of(source)).num_rows == 21


def _record_calls(monkeypatch: pytest.MonkeyPatch, output: Path) -> list[tuple[str, str]]:
    """fsyncs and renames of the output and its folder, in order; descriptors by the path they were opened for."""
    calls: list[tuple[str, str]] = []
    names: dict[int, str] = {}
    real_open, real_fsync, real_replace = os.open, os.fsync, Path.replace

    def open_(path: Any, *given: Any, **named: Any) -> int:
        descriptor = real_open(path, *given, **named)
        names[descriptor] = str(path)
        return descriptor

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        calls.append(("fsync", names.get(descriptor, "?")))

    def replace(self: Path, target: Any) -> Path:
        calls.append(("rename", str(self)))
        return real_replace(self, target)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    return calls


def test_the_file_is_durable_before_it_has_its_name_and_the_folder_after(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = output_of(catalogue)
    temp = str(output.with_name(f".{output.name}.tmp"))
    calls = _record_calls(monkeypatch, output)
    assert enrich(catalogue).status == 0
    ours = [call for call in calls if call[1] in (temp, str(output.parent))]
    assert ours == [("fsync", temp), ("rename", temp), ("fsync", str(output.parent))]


@pytest.mark.parametrize("at_call", [1, 2])
def test_a_failed_fsync_is_never_repeated(catalogue: Path, monkeypatch: pytest.MonkeyPatch, at_call: int) -> None:
    """The first is the file's, before it has its name; the second the folder's, after."""
    calls: list[int] = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path == catalogue.parent or path.name.startswith(f".{output_of(catalogue).name}"):
            calls.append(descriptor)
            if len(calls) == at_call:
                raise OSError(5, "Input/output error")

    with monkeypatch.context() as fault:
        fault.setattr(os, "fsync", fsync)
        with pytest.raises(IOFailure, match="durable"):
            enrich(catalogue)
    assert len(calls) == at_call
    if at_call == 1:
        assert output_of(catalogue).read_bytes() == FORMER
    assert not list(catalogue.parent.glob(".*.tmp"))


@pytest.mark.parametrize("number", [13, 18, 28])
def test_a_rename_that_fails(catalogue: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if target == output_of(catalogue):
            raise OSError(number, os.strerror(number))
        return real(self, target)

    with monkeypatch.context() as fault:
        fault.setattr(Path, "replace", replace)
        expect_former(catalogue, IOFailure, os.strerror(number))
    expect_whole(catalogue)


def test_a_leftover_of_a_killed_run_is_overwritten(catalogue: Path) -> None:
    leftover = catalogue.with_name(f".{output_of(catalogue).name}.tmp")
    leftover.write_bytes(b"half a file")
    expect_whole(catalogue)
    assert not leftover.exists()


def test_a_leftover_link_is_removed_and_not_followed(catalogue: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    catalogue.with_name(f".{output_of(catalogue).name}.tmp").symlink_to(victim)
    expect_whole(catalogue)
    assert victim.read_text() == "precious"


def test_an_output_that_is_a_link_keeps_being_one(catalogue: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "real.parquet"
    output_of(catalogue).unlink()
    output_of(catalogue).symlink_to(target)
    expect_whole(catalogue)
    assert output_of(catalogue).is_symlink()
    assert pq.read_metadata(target).num_rows == 400
