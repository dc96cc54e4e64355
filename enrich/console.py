"""How a command talks: one line for an error, one line a log record, nothing that could act on a terminal."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from datetime import datetime
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
        _log_to_stderr(as_json=getattr(options, "log", "text") == "json")
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


class JsonLine(logging.Formatter):
    """An object a record, one line each; with the figures of a line that has any."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **getattr(record, "progress", {}),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return printable(json.dumps(told))


def _log_to_stderr(*, as_json: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLine() if as_json else _OneLine("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("enrich")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
