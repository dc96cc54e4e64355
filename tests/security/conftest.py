from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .canary import Canary

if TYPE_CHECKING:
    from .besieged import Siege


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    """One that has not sung."""
    return Canary(tmp_path / "sang")


@pytest.fixture(scope="session")
def siege(tmp_path_factory: pytest.TempPathFactory) -> "Siege":
    """What came of the one siege that all tests share."""
    # Not at the top: it imports torch, which most of these tests do without.
    from .besieged import besiege

    return besiege(tmp_path_factory.mktemp("siege"))
