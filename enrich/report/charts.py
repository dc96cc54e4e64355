"""The report's charts: small SVG pictures by matplotlib that take their colours and type from the page's style sheet.

They hold no `style`, no `id`, no `<use>` and no font: what they hold is safe under the page's content security policy
and scales with the column that it stands in. The numbers of each chart are also in a table beside it.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from enrich.report.words import Say

# Colours that stand for classes of the style sheet. No two parts of a picture may share one by chance.
_CLASSES = {"#0000a1": "accent", "#0000a2": "ink", "#0000a3": "mute", "#0000a4": "rule", "#0000a5": "soft"}
_ACCENT, _INK, _MUTE, _RULE, _SOFT = _CLASSES
# Inches at 72 dots: as wide as a column on a telephone, so that the type keeps its size there.
_WIDTH = 360 / 72
_LOOK: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "enrich",
    "font.family": "DejaVu Sans",
    "font.size": 11.5,
    "text.color": _INK,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _MUTE,
    "axes.unicode_minus": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linestyle": "-",
    "grid.linewidth": 0.8,
    "xtick.color": _MUTE,
    "ytick.color": _MUTE,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "path.simplify": False,
    "text.parse_math": False,
}


def bars(steps: Sequence[tuple[str, str, int]], name: str) -> Markup:
    """Horizontal bars from the first to the last: label, number as said, number. `name` says the picture in words."""
    with _look():
        figure = Figure(figsize=(_WIDTH, 0.54 * len(steps)))
        axes = figure.add_axes((0, 0, 1, 1))
        numbers = _seen([number for _, _, number in steps])
        top = max(1, *numbers)
        for place, ((label, said, _), number) in enumerate(zip(steps, numbers, strict=True)):
            axes.barh(place, top, height=0.16, color=_SOFT)
            axes.barh(place, number, height=0.16, color=_ACCENT)
            axes.text(0, place - 0.2, label, color=_INK, va="baseline")
            axes.text(top, place - 0.2, said, color=_INK, va="baseline", ha="right")
        axes.set(xlim=(0, top), ylim=(len(steps) - 0.7, -0.72))
        axes.set_axis_off()
        return _svg(figure, name)


def histogram(heights: Sequence[int], ticks: Sequence[tuple[float, str]], axis: str, said: Say, name: str) -> Markup:
    """Upright bars at 0, 1, 2, …, with labels below some places."""
    with _look():
        figure, axes = _panel(axis, said, integer=True)
        axes.bar(range(len(heights)), _seen(heights), width=0.86, color=_ACCENT)
        axes.set_xticks([place for place, _ in ticks], [label for _, label in ticks])
        axes.set(xlim=(-0.6, len(heights) - 0.4), ylim=(0, max(1, *heights) * 1.04))
        return _svg(figure, name)


def line(points: Sequence[tuple[float, float, float]], axis: str, said: Say, name: str) -> Markup:
    """Steps over time: from, to, height. Below them the ground is tinted."""
    with _look():
        figure, axes = _panel(axis, said)
        edges = [*(start for start, _, _ in points), points[-1][1]]
        heights = [height for _, _, height in points]
        axes.stairs(heights, edges, fill=True, color=_SOFT)
        axes.stairs(heights, edges, color=_ACCENT, linewidth=1.6, baseline=None)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: said(value)))
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, max(1e-9, *heights) * 1.08))
        return _svg(figure, name)


@contextmanager
def _look() -> Iterator[None]:
    """What the charts look like, whatever a settings file of matplotlib on this machine says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_LOOK)
        yield


def _seen(numbers: Sequence[int]) -> list[float]:
    """Heights in which what is not nothing is a line at least."""
    least = max(1, *numbers) / 160
    return [max(number, least) if number else 0 for number in numbers]


def _panel(axis: str, said: Say, *, integer: bool = False) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_WIDTH, 172 / 72), layout="constrained")
    axes = figure.subplots()
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=integer))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: said(value)))
    axes.set_xlabel(axis)
    return figure, axes


def _svg(figure: Figure, name: str) -> Markup:
    """The picture as an element of the page, without what the page's policy forbids or the eye does not see."""
    written = io.StringIO()
    for axes in figure.axes:
        axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = ElementTree.fromstring(written.getvalue())  # noqa: S314
    picture = ElementTree.Element(
        "svg", {"class": "chart", "viewBox": drawn.attrib["viewBox"], "role": "img", "aria-label": name}
    )
    picture.extend(_shapes(drawn))
    return Markup(ElementTree.tostring(picture, encoding="unicode"))  # noqa: S704  (ours, and serialised as XML)


def _shapes(drawn: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The paths and words of a picture, each with its class, in the order in which they lie on one another."""
    for each in drawn.iter():
        kind = each.tag.rpartition("}")[2]
        if kind not in ("path", "text") or not (kind == "text" or each.get("style")):
            continue
        shape = ElementTree.Element(kind, dict(_looks(each)))
        if kind == "path":
            shape.set("d", _short(each.attrib["d"]))
        else:
            shape.text = each.text
        yield shape


def _looks(each: ElementTree.Element) -> Iterator[tuple[str, str]]:
    style = dict(part.strip().split(": ", 1) for part in each.get("style", "").split(";") if ": " in part)
    classes = [f"{paint}-{_CLASSES[style[paint]]}" for paint in ("fill", "stroke") if style.get(paint) in _CLASSES]
    if classes:
        yield "class", " ".join(classes)
    yield from ((key, style[key]) for key in ("stroke-width", "text-anchor") if key in style)
    yield from ((key, _short(each.attrib[key])) for key in ("x", "y") if key in each.attrib)


def _short(numbers: str) -> str:
    """A tenth of a point is finer than any screen shows."""
    return re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), " ".join(numbers.split()))
