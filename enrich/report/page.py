"""The morning report: one HTML page for the owner of the catalogue, made from the summary of a run.

It loads nothing, and its content security policy lets nothing run but its own script, whatever the texts in it say.
The same summary makes the same page, byte for byte. Its size is bounded whatever the summary holds: texts beyond
their room are left out, and the page says so.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from enrich.report.front import front
from enrich.report.section import section
from enrich.report.shown import plain, visible
from enrich.report.tally import Report, failed_first, has_rows, same_catalogue
from enrich.report.words import TEMPLATES, Locale, Voice

# Bytes of texts to read on one page; how many catalogues have a section; how many values of provenance are shown.
_ROOM = 420_000
_MOST_SECTIONS = 12
_MOST_VALUES = 200
# What the page says elsewhere than under provenance.
_TOLD = frozenset(
    ("version", "began", "seconds", "device", "status", "stopped_by", "gpu_hour_price", "cost", "error", "catalogues")
)

_TEMPLATES = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.filters |= {"visible": visible, "plain": plain}


def page(report: Report, previous: Report | None, locale: Locale = "en") -> str:
    """The page. `report` is what `summary.json` holds, `previous` the same of the run before, to compare with.

    What a summary lacks is left out or said to be unknown.
    """
    voice, css, script = Voice(locale), _asset("report.css"), _asset("report.js")
    chosen = _chosen(report)
    return (
        _TEMPLATES.get_template("report.html.j2")
        .render(
            voice=voice,
            say=voice.say,
            css=css,
            script=script,
            policy=_policy(css, script),
            front=front(report, previous, voice),
            sections=[section(each, same_catalogue(each, previous), voice, _ROOM // len(chosen)) for each in chosen],
            num_left_out=sum(map(has_rows, report.get("catalogues") or [])) - len(chosen),
            provenance=tree({key: value for key, value in report.items() if key not in _TOLD}),
        )
        .lstrip()
    )


def _asset(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704  (a file of ours)


def _policy(css: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src {_hash(css)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _chosen(report: Report) -> list[Mapping[str, Any]]:
    """The catalogues that have a section: where most was written, in the order of the report, the failed first."""
    catalogues = [each for each in report.get("catalogues") or [] if has_rows(each)]
    by_worth = sorted(catalogues, key=lambda each: -(each.get("written") or 0))
    chosen = {id(each) for each in failed_first(by_worth)[:_MOST_SECTIONS]}
    return failed_first(each for each in catalogues if id(each) in chosen)


Tree = str | list["Tree"] | dict[str, "Tree"]


def tree(value: object) -> Tree:
    """Nested values as the template draws them, some hundreds at most."""
    return _tree(value, iter(range(_MOST_VALUES)), 6)


def _tree(value: object, tickets: Iterator[int], depth: int) -> Tree:
    # A ticket is taken for each value: the whole tree runs out of them, not a branch.
    if depth and isinstance(value, Mapping):
        return {
            plain(key, 80): _tree(each, tickets, depth - 1)
            for _, (key, each) in zip(tickets, value.items(), strict=False)
        }
    if depth and isinstance(value, list | tuple):
        return [_tree(each, tickets, depth - 1) for _, each in zip(tickets, value, strict=False)]
    if value is None:
        return "–"
    return plain(str(value).lower() if isinstance(value, bool) else value, 200)
