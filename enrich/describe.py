"""The interactive loop: somebody types a title and sees its description appear as it is written.

It asks what a night would ask: template, adapter, cleaning and rules are the same. It remembers nothing, needs no
catalogue and no state. Whatever a title or a model says, nothing of it acts on the terminal.
"""

import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import takewhile, zip_longest
from pathlib import Path

from ftfy.formatting import display_ljust, monospaced_width

from enrich.author import Author
from enrich.catalog.columns import Gap
from enrich.engine.protocol import Ended, Stream
from enrich.errors import IOFailure, UsageError
from enrich.fates import TITLE_CUT
from enrich.plan import product_of
from enrich.products import Product
from enrich.quality.score import MEANINGS
from enrich.settings import Settings
from enrich.text import printable
from enrich.verdicts import NOT_WRITTEN

Show = Callable[[str], None]

_LEAVE = "exit"
_NAME_VALUE = re.compile(r"""(?P<name>[^\W\d]\w*)=(?P<value>"[^"]*"|'[^']*'|\S*)(?!\S)|\S+""")
_MEANINGS: dict[str, str] = {
    "no_title": "there is no title; it comes first, name=value pairs may follow",
    "unusable_title": "the title holds no letter and no digit",
    "control_token": "the product cannot be said without a control token of the model",
    "model_failed": "the model's numbers went out of range",
    **MEANINGS,
    TITLE_CUT: "title and attributes were cut to fit the prompt",
}
_TIDIED = "what would be published differs: spare white space, control characters or leftovers of the prompt go"

_GUTTER = " │ "
_MIN_COLUMN = 16
_MAX_HISTORY = 1000


@dataclass(frozen=True, slots=True)
class Text:
    """What became of a title: the text as it would be published (None: nothing), its codes, and what it took.

    `ended` is `eos`, `length`, or why the model wrote nothing: `failed`, `refused` (a control token in the product),
    `rejected` (no usable title).
    """

    text: str | None
    flags: tuple[str, ...]
    ended: str
    tokens: int = 0
    seconds: float = 0.0
    unsupported: tuple[tuple[str, str], ...] = ()
    """Kind and words of each claim that the product does not support."""


def describe(typed: str | None, settings: Settings, *, compare: bool = False, as_json: bool = False) -> None:
    """Answers `typed`, or else each line of standard input; what is piped in is always answered in JSON.

    Raises `UsageError` for a title that says nothing and for a comparison without an adapter, `IOFailure` when the
    answer cannot be written, and what choosing and loading a model raise.
    """
    if typed is not None:
        _refuse_unusable(typed)
    piped = typed is None and not sys.stdin.isatty()
    pens = _choose_pens(settings, compare)
    answer = partial(_answer_in_json if as_json or piped else _answer_aloud, pens)
    if typed is not None:
        answer(typed)
        return
    # One bad byte on a line is no reason to lose the others.
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    if piped:
        for line in sys.stdin:
            answer(line)
    else:
        _note(f"{pens[-1].name}: type a title, brand=… may follow; Ctrl-C abandons a text, {_LEAVE} or Ctrl-D leaves")
        with _history():
            _converse(answer)


def _refuse_unusable(typed: str) -> None:
    product = product_of(gap_of(typed))
    if isinstance(product, str):
        raise UsageError(f"{typed!r}: {_MEANINGS[product]}")


def gap_of(line: str) -> Gap:
    """A line as a row that misses its description: the title, and the name=value pairs that it ends with.

    A value may stand in quotes. Words that only look like a pair in the midst of a title are the title's.
    """
    words = list(_NAME_VALUE.finditer(line))
    num_pairs = sum(1 for _ in takewhile(lambda word: word["name"], reversed(words)))
    pairs = words[len(words) - num_pairs :]
    title = line[: pairs[0].start()] if pairs else line
    attributes = {pair["name"]: _unquoted(pair["value"]) for pair in pairs}
    return Gap(0, title, tuple(attributes.items()), None)


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] in "\"'" and value[0] == value[-1]
    return value[1:-1] if quoted else value


class Pen:
    """An author's model, loaded: writes one text at a time, for somebody who watches."""

    def __init__(self, author: Author) -> None:
        self._prompts, self._judge = author.prompts, author.judge
        self._streamer = author.streamer()
        base = author.base.name if author.base else "echo"
        self.name = f"{base} with {author.adapter.folder.name}" if author.adapter else base

    def write(self, product: Product, show: Show) -> tuple[Text, str]:
        """The text, and what was shown of it on the way, a piece at a time."""
        began = time.monotonic()
        (prompt,) = self._prompts.write([product])
        if prompt.refused:
            return Text(None, (NOT_WRITTEN["refused"],), "refused"), ""
        growing = _Growing(self._prompts.tokenizer.decode)
        ended = _each(self._streamer.stream(prompt.ids), lambda token: show(growing.add(token)))
        took = len(growing.ids), round(time.monotonic() - began, 3)
        if ended == "failed":
            return Text(None, (NOT_WRITTEN[ended],), ended, *took), growing.shown
        verdict = self._judge.judge(growing.whole, ended, product)
        flags = (*verdict.flags, *([TITLE_CUT] if prompt.cut else []))
        text = verdict.text or ""
        spans = self._judge.spans(text, product)
        claims = tuple((span.kind, text[span.start : span.end]) for span in spans)
        return Text(verdict.text, flags, ended, *took, claims), growing.shown


class _Growing:
    """A text that grows by a token at a time."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self.ids: list[int] = []
        self.whole = self.shown = ""
        self._decode = decode

    def add(self, token: int) -> str:
        """What may be shown since then: half a character waits for its other half, white space for a text."""
        self.ids.append(token)
        self.whole = self._decode(self.ids)
        new = self.whole.rstrip("\ufffd").lstrip()[len(self.shown) :]
        self.shown += new
        return new


def _each(stream: Stream, see: Callable[[int], None]) -> Ended:
    """Hands over every token of a stream, and returns why it ends."""
    while True:
        try:
            token = next(stream)
        except StopIteration as end:
            ended: Ended = end.value
            return ended
        see(token)


def _choose_pens(settings: Settings, compare: bool) -> list[Pen]:
    """The pen that writes; to compare, before it that of the base alone."""
    author = Author.choose(settings)
    if compare and author.adapter is None:
        raise UsageError("--compare: no adapter is in force, so there is nothing to compare; name one with --adapter")
    return [Pen(each) for each in ([author.with_adapter(None), author] if compare else [author])]


def _answer_in_json(pens: Sequence[Pen], line: str) -> None:
    gap = gap_of(line)
    product = product_of(gap)
    if isinstance(product, str):
        asked = Product((gap.title or "").strip(), gap.attributes)
        texts = [Text(None, (product,), "rejected")] * len(pens)
    else:
        asked = product
        texts = [pen.write(product, lambda _: None)[0] for pen in pens]
    answer = {"title": asked.title, "attributes": dict(asked.attributes), **asdict(texts[-1])}
    if len(texts) > 1:
        answer["base"] = asdict(texts[0])
    _say(_json_line(answer) + "\n")


def _json_line(answer: dict[str, object]) -> str:
    line = json.dumps(answer, ensure_ascii=False)
    return "".join(each if each.isprintable() else _json_escape(each) for each in line)


def _json_escape(character: str) -> str:
    return re.sub("....", r"\\u\g<0>", character.encode("utf-16-be", "surrogatepass").hex())


def _answer_aloud(pens: Sequence[Pen], line: str) -> None:
    product = product_of(gap_of(line))
    if isinstance(product, str):
        _note(f"{product}: {_MEANINGS[product]}")
    elif len(pens) > 1:
        texts = [pen.write(product, lambda _: None)[0] for pen in pens]
        _say("".join(f"{row}\n" for row in side_by_side([pen.name for pen in pens], texts)))
    else:
        text, shown = pens[0].write(product, _say)
        _say("\n")
        for flag in text.flags:
            _note(f"{flag}: {_MEANINGS[flag]}{_claimed(flag, text)}")
        if text.text and text.text != shown.rstrip():
            _note(_TIDIED)


def _claimed(flag: str, text: Text) -> str:
    said = ", ".join(words for kind, words in text.unsupported if flag == f"unsupported_{kind}")
    return f": {said}" if said else ""


def side_by_side(names: Sequence[str], texts: Sequence[Text]) -> Iterator[str]:
    """Two texts in two columns that fill the width of the terminal, under their names; one row at a time."""
    width = max(_MIN_COLUMN, (shutil.get_terminal_size().columns - len(_GUTTER)) // 2)
    columns = [
        [row for line in (name, "-" * width, text.text or "", *text.flags) for row in _wrapped(line, width)]
        for name, text in zip(names, texts, strict=True)
    ]
    for left, right in zip_longest(*columns, fillvalue=""):
        yield f"{display_ljust(left, width)}{_GUTTER}{right}".rstrip()


def _wrapped(text: str, width: int) -> Iterator[str]:
    for line in map(printable, text.split("\n")):
        # Ideographs take two cells, and textwrap counts characters.
        yield from textwrap.wrap(line, width if monospaced_width(line) == len(line) else width // 2) or [""]


def _converse(answer: Callable[[str], None]) -> None:
    """Answers each typed line; leaves at the end of input, at `exit`, and when interrupted twice in a row."""
    interrupted = False
    while True:
        try:
            line = input("> " if sys.stdout.isatty() else "").strip()
        except EOFError:
            _note("")
            return
        except KeyboardInterrupt:
            _note("")
            if interrupted:
                return
            _note(f"Ctrl-C again, {_LEAVE} or Ctrl-D leaves")
            interrupted = True
            continue
        if line == _LEAVE:
            return
        interrupted = bool(line) and _is_abandoned(answer, line)


def _is_abandoned(answer: Callable[[str], None], line: str) -> bool:
    try:
        answer(line)
    except KeyboardInterrupt:
        _note("")
        return True
    return False


@contextmanager
def _history() -> Iterator[None]:
    """The lines of earlier times, under the arrow keys. Whatever fails here, somebody can still type."""
    failures = (ImportError, OSError, RuntimeError)
    with suppress(*failures):
        _recall_lines()
    try:
        yield
    finally:
        with suppress(*failures):
            _keep_lines()


def _recall_lines() -> None:
    import readline  # not in every Python

    file = _history_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Made here: readline would let everybody read it.
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
    readline.read_history_file(file)


def _keep_lines() -> None:
    import readline

    readline.set_history_length(_MAX_HISTORY)
    readline.write_history_file(_history_file())


def _history_file() -> Path:
    folder = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(folder).expanduser() / "enrich" / "describe.history"


def _say(text: str) -> None:
    try:
        sys.stdout.write("\n".join(map(printable, text.split("\n"))))
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail once more at exit, with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise IOFailure(f"standard output: cannot be written: {error.strerror}") from error


def _note(line: str) -> None:
    sys.stderr.write(printable(line) + "\n")
    sys.stderr.flush()
