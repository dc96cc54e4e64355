"""A folder of results that appears under its name complete, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enrich.durable import sync_folder, temporary
from enrich.errors import IOFailure, UsageError


@contextmanager
def fresh_folder(final: Path, mark: str) -> Iterator[Path]:
    """Yields an empty folder beside `final` that takes its name when the block ends without an exception.

    A former folder is replaced only if it is empty or holds the file `mark`: `UsageError` otherwise. On any failure the
    former one stays as it is. Raises `IOFailure` when the disk is full or cannot be written.
    """
    former = final.with_name(f".{final.name}.former")
    temp = temporary(final)
    try:
        _recover(former, final)
        _check_ours(final, mark)
        shutil.rmtree(temp, ignore_errors=True)
        temp.mkdir(parents=True)
        yield temp
        sync_folder(temp)
        _swap(temp, final, former)
    except OSError as error:
        raise IOFailure(f"{final}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _recover(former: Path, final: Path) -> None:
    """A run that was killed between two renames left the former folder aside."""
    if former.exists() and not final.exists():
        former.rename(final)
    shutil.rmtree(former, ignore_errors=True)


def _check_ours(final: Path, mark: str) -> None:
    if not os.path.lexists(final):
        return
    if not final.is_dir() or (any(final.iterdir()) and not (final / mark).is_file()):
        raise UsageError(f"{final}: is there and holds no {mark}, so it is not ours to replace; name another folder")


def _swap(temp: Path, final: Path, former: Path) -> None:
    if final.exists():
        final.rename(former)
    temp.rename(final)
    shutil.rmtree(former, ignore_errors=True)
