"""Files that appear under their final name complete and durable, or not at all."""

import os
from pathlib import Path

from enrich.errors import IOFailure


def temporary(final: Path) -> Path:
    """The name a file bears until it is complete: in the same folder, hidden, and the same on every try."""
    return final.with_name(f".{final.name}.tmp")


def discard(path: Path) -> None:
    """Removes a leftover if there is one. A link is removed, never followed."""
    path.unlink(missing_ok=True)


def is_plain_file(path: Path) -> bool:
    """Whether a file is there, and is no link."""
    return path.is_file() and not path.is_symlink()


def replace(temp: Path, final: Path) -> None:
    """Makes `temp` durable and gives it its final name: fsync, rename, fsync of the folder.

    A failed fsync is never repeated: the kernel may have dropped the pages that it could not write and
    report success the second time. The file is discarded instead, and `IOFailure` raised.
    """
    try:
        _fsync(temp, os.O_RDONLY)
        temp.replace(final)
        _fsync(final.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        discard(temp)
        raise IOFailure(f"{final}: cannot be made durable: {error.strerror}") from error


def replace_folder(temp: Path, final: Path) -> None:
    """Makes every file of the folder `temp` durable and gives it the name `final`, where nothing may be yet."""
    try:
        sync_folder(temp)
        temp.rename(final)
        _fsync(final.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise IOFailure(f"{final}: cannot be made durable: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Makes a folder and all that it holds durable under the name it has. Raises `OSError`."""
    for path in (*sorted(folder.rglob("*")), folder):
        _fsync(path, os.O_RDONLY)


def write(final: Path, content: bytes) -> None:
    """Writes a small file the same way."""
    temp = temporary(final)
    discard(temp)
    try:
        temp.write_bytes(content)
    except OSError as error:
        discard(temp)
        raise IOFailure(f"{final}: cannot be written: {error.strerror}") from error
    replace(temp, final)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
