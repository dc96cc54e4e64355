"""Every way a run can end, as one tree.

    EnrichError                what happened, where, what to do: one line, no traceback
    ├── Difference         1   `verify` found a difference
    ├── TooManyRejected    4   not published: more bad rows than --max-rejected
    ├── UsageError        64   the command line asks for something that makes no sense
    ├── CatalogueError    65   the catalogue is unreadable, irreconcilable, or changed while being read
    ├── NoInput           66   no such input
    ├── ModelUnavailable  69   the model, the adapter or the GPU cannot be used
    ├── IOFailure         74   reading or writing failed below us
    ├── Busy              75   another run holds the lock
    ├── Stopped           75   a signal asked us to stop: run again, nothing is lost
    └── SettingsError     78   settings or adapter do not fit together

0 means published with nothing left, 6 means published with rows pending: neither is an error.
"""

from collections.abc import Iterable

PUBLISHED = 0
PUBLISHED_WITH_PENDING = 6

# From harmless to grave: the status of a folder of catalogues is the gravest of its files.
_BY_GRAVITY = (PUBLISHED, PUBLISHED_WITH_PENDING, 4, 66, 65, 1, 78, 64, 69, 74, 75)


class EnrichError(Exception):
    """An expected failure. `str(error)` is the one line an operator reads."""

    status = 70


class Difference(EnrichError):
    """The output is not the input with its gaps filled."""

    status = 1


class TooManyRejected(EnrichError):
    """More records were bad than the operator tolerates, so nothing was published."""

    status = 4


class UsageError(EnrichError):
    """The command line cannot be acted on."""

    status = 64


class CatalogueError(EnrichError):
    """The catalogue as a whole cannot be trusted; `code` is a stable reason for tests and reports."""

    status = 65

    def __init__(self, message: str, code: str = "unreadable") -> None:
        super().__init__(message)
        self.code = code


class NoInput(EnrichError):
    """The named input does not exist."""

    status = 66


class ModelUnavailable(EnrichError):
    """The model, adapter or card is missing, damaged or too small."""

    status = 69


class IOFailure(EnrichError):
    """The disk or the network failed; whatever was published before is intact."""

    status = 74


class Busy(EnrichError):
    """Another run holds the lock of this state folder."""

    status = 75


class Stopped(EnrichError):
    """A signal arrived. Finished batches are committed."""

    status = 75


class SettingsError(EnrichError):
    """The settings, or an adapter and its base, contradict each other."""

    status = 78


def gravest(statuses: Iterable[int]) -> int:
    """The one exit status that stands for several."""
    return max(statuses, key=_BY_GRAVITY.index, default=PUBLISHED)
