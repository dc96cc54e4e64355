"""How a command talks: one line for an error, one line a log record, nothing that could act on a terminal."""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

from enrich.errors import EnrichError, Stopped, UsageError
from enrich.text import printable


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would print a page and leave."""

    def error(self, message: str) -> Any:
        raise UsageError(f"{message}; see {self.prog} --help")


def run_command(parser: Parser, arguments: Sequence[str] | None) -> int:
    """Parses, runs the command that was chosen (`options.command`) and returns the exit status."""
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        options = parser.parse_args(arguments)
        _log_to_stderr()
        return int(options.command(options))
    except EnrichError as error:
        return _fail(parser, error)
    except KeyboardInterrupt:
        return _fail(parser, Stopped("interrupted"))


def _fail(parser: Parser, error: EnrichError) -> int:
    sys.stderr.write(f"{parser.prog}: {printable(str(error))}\n")
    return error.status


def say(*lines: str) -> None:
    """Prints lines, each of which stays one."""
    sys.stdout.writelines(printable(line) + "\n" for line in lines)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("enrich")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
