"""The tool's own code: what it imports and mentions."""

import re
from functools import cache

from ..runs import ROOT
from ..test_house import imports


@cache
def imported() -> dict[str, set[str]]:
    """By file of the package `enrich`: every dotted name that it imports."""
    return {str(file.relative_to(ROOT)): imports(file) for file in sorted((ROOT / "enrich").rglob("*.py"))}


def importing(names: set[str], found: dict[str, set[str]]) -> dict[str, set[str]]:
    """Which of these modules, or of what lies in them, each file imports; only files that import any."""
    used = {
        file: {each for each in names if any(name == each or name.startswith(f"{each}.") for name in theirs)}
        for file, theirs in found.items()
    }
    return {file: theirs for file, theirs in used.items() if theirs}


def mentioning(pattern: str) -> list[str]:
    """The files of the package `enrich` in whose source the pattern is found."""
    return [file for file in imported() if re.search(pattern, (ROOT / file).read_text(encoding="utf-8"))]
