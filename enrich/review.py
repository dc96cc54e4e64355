"""What a person decides about held rows: approve, edit or discard, line by line, into the memory.

A decision is about a product, by its title and attributes; it wins over every model, today's and tomorrow's.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enrich import durable
from enrich.errors import CatalogueError, NoInput, UsageError
from enrich.memory import Memory, Review
from enrich.state import State
from enrich.text import json_line, printable

# What the memory calls a decision, and with it `enrich_flags`.
_VERDICTS = {"approve": "approved", "edit": "edited", "discard": "discarded"}


@dataclass(frozen=True, slots=True)
class Reviewed:
    """How many products of a file were approved, edited and discarded, and how many nobody decided about."""

    approved: int
    edited: int
    discarded: int
    undecided: int


def review(file: Path, state: State) -> Reviewed:
    """Takes the decisions of a file that `enrich held` wrote and a person filled in into the memory, all or none.

    `approve` and `edit` keep the line's `text`, `discard` lets the row stay as it is. Raises `NoInput` when there is no
    such file, `CatalogueError` when a line is none of ours, `UsageError` for a decision that is none.
    """
    decided: dict[bytes, Review] = {}
    counts = dict.fromkeys((*_VERDICTS, None), 0)
    for number, row in enumerate(_rows(file), start=1):
        decision = row.get("decision")
        if decision is not None and decision not in _VERDICTS:
            raise UsageError(f"{file}, line {number}: decision {decision!r}: one of {', '.join(_VERDICTS)}, or null")
        counts[decision] += 1
        if decision is not None:
            decided[bytes.fromhex(row["product"])] = _decided(file, number, decision, row["text"])
    with state.locked(), Memory.open(state.memory) as memory:
        memory.add_reviews(decided)
    return Reviewed(*counts.values())


def decide(file: Path, ask: Callable[[str], str], say: Callable[[str], None]) -> None:
    """Goes through the rows that nobody decided about, worst first, and notes in the file what a person answers.

    An answer that is none of the letters skips the row, `q` ends. What was decided until then is in the file.
    """
    rows = list(_rows(file))
    try:
        for row in rows:
            if row.get("decision") is None:
                _show(row, say)
                answer = ask("[a]pprove, [e]dit, [d]iscard, [q]uit, or Enter to skip: ").strip().lower()[:1]
                if answer == "q":
                    break
                _note(row, answer, ask)
    except (EOFError, KeyboardInterrupt):
        pass
    finally:
        durable.write(file, "".join(json_line(row) + "\n" for row in rows).encode())


def _show(row: dict[str, Any], say: Callable[[str], None]) -> None:
    say("")
    say(printable(row["title"]))
    for name, value in row["attributes"].items():
        say(f"  {printable(name)}: {printable(value)}")
    say(f"  {printable(row['text'])}")
    told = ", ".join(f"{each['kind']} {printable(each['text'])!r}" for each in row["unsupported"])
    say(f"  score {row['score']}: {', '.join(row['flags'])}{f' ({told})' if told else ''}")


def _note(row: dict[str, Any], answer: str, ask: Callable[[str], str]) -> None:
    match answer:
        case "a":
            row["decision"] = "approve"
        case "d":
            row["decision"] = "discard"
        case "e":
            text = ask("text: ").strip()
            if text:
                row["decision"], row["text"] = "edit", text


def _decided(file: Path, number: int, decision: str, text: str) -> Review:
    if decision == "discard":
        return Review(_VERDICTS[decision])
    if not text.strip():
        raise UsageError(f"{file}, line {number}: {decision} without a text: write one, or discard")
    return Review(_VERDICTS[decision], text.strip())


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    try:
        content = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NoInput(f"{file}: no such file; write one with `enrich held OUTPUT --out {file}`") from None
    except UnicodeDecodeError:
        raise CatalogueError(f"{file}: not UTF-8", "not_utf8") from None
    for number, line in enumerate(filter(str.strip, content.split("\n")), start=1):
        try:
            row = json.loads(line)
            if len(bytes.fromhex(row["product"])) != 16 or not isinstance(row["text"], str):
                raise ValueError
        except (ValueError, LookupError, TypeError):
            raise CatalogueError(f"{file}, line {number}: no line of `enrich held`", "foreign") from None
        yield row
