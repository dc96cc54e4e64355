"""The words of the report in its reader's language, and numbers, spans of time and dates as that language writes them.

The words are data (`templates/en.toml`, `templates/pt.toml`), both with the same keys.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from enrich.quality.score import MEANINGS

Locale = Literal["en", "pt"]
Say = Callable[[float], str]
LOCALES: tuple[Locale, ...] = ("en", "pt")
TEMPLATES = Path(__file__).parent / "templates"

_MINUS = "\N{MINUS SIGN}"
# Keeps a number and its unit on one line.
_TIGHT = "\N{NO-BREAK SPACE}"


@cache
def words_of(locale: Locale) -> Mapping[str, str]:
    """Every word of a language by its dotted key."""
    return dict(_flat(tomllib.loads((TEMPLATES / f"{locale}.toml").read_text(encoding="utf-8"))))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, str):
            yield f"{prefix}{key}", value
        else:
            yield from _flat(value, f"{prefix}{key}.")


class Voice:
    """Says the report's sentences in one language."""

    def __init__(self, locale: Locale) -> None:
        self._words = words_of(locale)
        self._separators = str.maketrans({",": self._words["thousands"], ".": self._words["decimal"], "-": _MINUS})

    def say(self, key: str, **values: object) -> str:
        """The words of `key` with values put in. Raises `KeyError` for a key that no language has."""
        return self._words[key].format_map(values)

    def count(self, key: str, n: int, **values: object) -> str:
        """Words about so many, in the form that the number asks for."""
        forms = (f"{key}.{form}" for form in ({0: "zero", 1: "one"}.get(n, "other"), "other"))
        return self.say(next(form for form in forms if form in self._words), n=self.number(n), **values)

    def maybe(self, key: str, **values: object) -> str | None:
        """The words of `key` if there are any: for keys that come from the data."""
        return self.say(key, **values) if key in self._words else None

    def meaning(self, code: str) -> str:
        """What a code of `enrich_flags` says to a person."""
        return self.maybe(f"codes.{code}") or MEANINGS.get(code) or self.say("flags.unknown")

    @property
    def kinds(self) -> Mapping[str, str]:
        """Names of the kinds of claims."""
        return {key.removeprefix("kinds."): said for key, said in self._words.items() if key.startswith("kinds.")}

    def number(self, value: float, decimals: int = 0) -> str:
        """1,234.5 or 1.234,5."""
        return f"{value:,.{decimals}f}".translate(self._separators)

    def figure(self, value: float) -> str:
        """A number with as many decimals as its size deserves."""
        return self.number(value, 0 if value >= 100 or value == int(value) else 1 if value >= 10 else 2)

    def axis(self, value: float) -> str:
        """A number at an axis, without decimals that say nothing."""
        decimals = next(places for places in range(4) if places == 3 or round(value, places) == round(value, 4))
        return self.number(value, decimals)

    def money(self, value: float) -> str:
        """An amount: the summary names no currency. Small ones in more decimals, so that they are not nought."""
        return self.number(value, 2 if value >= 0.1 or not value else 4)

    def share(self, part: float, whole: float) -> str:
        """A part in percent. What is not nothing is never said to be nothing, nor what is not all to be all."""
        percent = 100 * part / whole if whole else 0.0
        if 0 < percent < 0.05:
            return f"<{self.number(0.1, 1)}%"
        if 99.95 <= percent < 100:
            return f">{self.number(99.9, 1)}%"
        return f"{self.number(percent, 1)}%"

    def span(self, seconds: float) -> str:
        """A time: 5.2 s, 12 min 5 s, 1 h 30 min."""
        if seconds < 59.95:
            parts = [f"{self.number(seconds, 2 if 0 < seconds < 1 else 1)} s"]
        elif seconds < 3599.5:
            parts = [f"{round(seconds) // 60} min", f"{round(seconds) % 60} s"]
        else:
            minutes = round(seconds / 60)
            parts = [f"{self.number(minutes // 60)} h", f"{minutes % 60} min"]
        return " ".join(parts).replace(" ", _TIGHT)

    def change(self, now: float | None, before: float | None, say: Say) -> str | None:
        """How much more or less it is than before, with its sign; None where one of the two is not known."""
        if now is None or before is None:
            return None
        return f"{'+' if now > before else _MINUS if now < before else '±'}{say(abs(now - before))}"

    def outcome(self, status: object) -> str | None:
        """What an exit status means; None where there is none."""
        if status is None:
            return None
        return self.maybe(f"outcome.{status}") or self.say("outcome.else", status=str(status)[:10])

    def date(self, moment: datetime) -> str:
        month = self._words["months"].split()[moment.month - 1]
        return self.say("date", day=moment.day, month=month, year=moment.year)


def moment_of(text: object) -> datetime | None:
    """A time in ISO 8601 as UTC; None for what is none."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
