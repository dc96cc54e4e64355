"""A canary: something on disk that is there only if what must never run has run."""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Canary:
    """A folder that the code under attack must not make."""

    folder: Path

    @property
    def sang(self) -> bool:
        return self.folder.exists()

    def as_pickle(self) -> bytes:
        """Bytes that make the folder when they are unpickled."""
        return pickle.dumps(self.as_object())

    def as_object(self) -> object:
        """What makes the folder when its pickle is loaded."""
        return _Bait(str(self.folder))

    def as_code(self) -> str:
        """Python that makes the folder when it is run."""
        return f"import os\nos.makedirs({str(self.folder)!r}, exist_ok=True)\n"


class _Bait:
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __reduce__(self) -> Any:
        return os.makedirs, (self._folder, 0o700, True)
