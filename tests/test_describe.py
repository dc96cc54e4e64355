"""The interactive loop: the text a night would write, token by token, and a terminal that nothing can steer."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, get_args

import pytest
from ftfy.formatting import monospaced_width
from hypothesis import given
from hypothesis import strategies as st

from enrich.catalog.columns import Gap
from enrich.describe import _MEANINGS, Text, _Growing, _history, gap_of, side_by_side
from enrich.engine.protocol import Completion, EchoGenerator, Request
from enrich.plan import product_of
from enrich.products import Product
from enrich.prompt import ByteTokenizer
from enrich.settings import Code

from .conftest import Command, Outcome
from .engine.conftest import build_adapter, build_tiny
from .runs import PUBLISH_ALL, ROOT, environment, write_catalogue

# A session of its own, with the pseudo-terminal for its controlling one; the echo takes its time over each token.
CHILD = """
import fcntl, sys, termios, time
if sys.stdin.isatty():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from enrich.cli import main
from enrich.engine.protocol import EchoGenerator
stream = EchoGenerator.stream
def slowly(self, prompt_ids):
    answer = stream(self, prompt_ids)
    while True:
        try:
            token = next(answer)
        except StopIteration as end:
            return end.value
        time.sleep(0.05)
        yield token
EchoGenerator.stream = slowly
if "--no-readline" in sys.argv:
    sys.argv.remove("--no-readline")
    sys.modules["readline"] = None
sys.exit(main(["describe", "--engine", "echo", *sys.argv[1:]]))
"""
CTRL_C, CTRL_D = "\x03", "\x04"


class Terminal:
    """A pseudo-terminal with `enrich describe` in it, and everything that it showed."""

    def __init__(self, state: Path, *arguments: str) -> None:
        self.screen, keyboard = pty.openpty()
        self.shown = ""
        self._read_to = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments],
            stdin=keyboard,
            stdout=keyboard,
            stderr=keyboard,
            cwd=ROOT,
            env=environment(XDG_STATE_HOME=str(state), TERM="dumb"),
            start_new_session=True,
        )
        os.close(keyboard)

    def type(self, keys: str) -> None:
        os.write(self.screen, keys.encode())

    def interrupt(self) -> None:
        # Between showing the prompt and waiting for a key, Python keeps a signal until the next key.
        time.sleep(0.3)
        self.type(CTRL_C)

    def expect(self, text: str) -> None:
        """Waits until `text` is shown, past what was expected before."""
        deadline = time.monotonic() + 30
        while text not in self.shown[self._read_to :]:
            assert time.monotonic() < deadline, self.shown
            self._read(text)
        self._read_to = self.shown.index(text, self._read_to) + len(text)

    def _read(self, awaited: str) -> None:
        if not select.select([self.screen], [], [], 1)[0]:
            return
        try:
            self.shown += os.read(self.screen, 4096).decode(errors="replace")
        except OSError:  # the other end is closed
            pytest.fail(f"{awaited!r} was not shown: {self.shown}")

    def status(self) -> int:
        """The exit status, once it has left by itself."""
        return self._process.wait(30)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self.screen)


@contextmanager
def terminal(state: Path, *arguments: str) -> Iterator[Terminal]:
    opened = Terminal(state, *arguments)
    try:
        opened.expect("echo: type a title")
        opened.expect("> ")
        yield opened
    finally:
        opened.close()


def answers(outcome: Outcome) -> list[dict[str, Any]]:
    assert (outcome.status, outcome.said) == (0, "")
    return [json.loads(line) for line in outcome.printed.split("\n")[:-1]]


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(content), encoding="utf-8"))


def saying(monkeypatch: pytest.MonkeyPatch, text: str, ended: str = "eos") -> None:
    """A model that says the same of everything."""

    def generate(_: EchoGenerator, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            yield Completion(request.key, tuple(text.encode()), ended)  # type: ignore[arg-type]

    monkeypatch.setattr(EchoGenerator, "generate", generate)


# What is typed


@pytest.mark.parametrize(
    ("line", "title", "attributes"),
    [
        ("Blue mug", "Blue mug", ()),
        ("Blue mug brand=Acme size=M\n", "Blue mug", (("brand", "Acme"), ("size", "M"))),
        ("Blue mug brand=\"Acme & Co\" note='a  b'", "Blue mug", (("brand", "Acme & Co"), ("note", "a b"))),
        ("Caneca  azul   preço=9,90", "Caneca azul", (("preço", "9,90"),)),
        ('Mug a="x b=y"', "Mug", (("a", "x b=y"),)),
        ("Mug a=1 a=2 b= c=''", "Mug", (("a", "2"),)),
        ("E=mc2 poster", "E=mc2 poster", ()),
        ("Mug a=1 and more", "Mug a=1 and more", ()),
        ("Sums: 1+1=2 3=3", "Sums: 1+1=2 3=3", ()),
        ('Mug brand="Acme Co', 'Mug brand="Acme Co', ()),
        ("Women's shoe brand='s", "Women's shoe", (("brand", "'s"),)),
        ("Mug &amp; saucer <b>new</b>", "Mug & saucer new", ()),
        ("Mug \udcff", "Mug \ufffd", ()),
    ],
)
def test_a_line_is_a_title_and_the_pairs_it_ends_with(
    line: str, title: str, attributes: tuple[tuple[str, str], ...]
) -> None:
    assert product_of(gap_of(line)) == Product(title, attributes)


@pytest.mark.parametrize(("line", "code"), [("", "no_title"), ("brand=Acme", "no_title"), ("!? a=1", "unusable_title")])
def test_a_line_without_a_title_is_no_product(line: str, code: str) -> None:
    assert product_of(gap_of(line)) == code


@given(st.text(st.sampled_from("ab=\"' \u00e9\n\x00<&"), max_size=40))
def test_any_line_can_be_typed(line: str) -> None:
    gap = gap_of(line)
    assert isinstance(gap, Gap)
    assert line.startswith(gap.title or "")
    assert all(value in line for _, value in gap.attributes)


# One title


def test_a_title_on_the_command_line_is_answered(enrich: Command) -> None:
    outcome = enrich("describe", "Blue mug brand=Acme", "--engine", "echo")
    assert (outcome.status, outcome.printed, outcome.said) == (0, "Blue mug; brand: Acme\n", "")


def test_a_title_that_says_nothing_is_a_usage_error(enrich: Command) -> None:
    for title in ("", "?!", "brand=Acme"):
        outcome = enrich("describe", title, "--engine", "echo")
        assert (outcome.status, outcome.printed) == (64, "")
        assert "title" in outcome.error


def test_every_code_is_explained_where_a_text_is_shown(enrich: Command, tmp_path: Path) -> None:
    said = {}
    for code, rule in (("too_short", "min_chars = 40"), ("forbidden_claim", "forbidden = { '*' = ['mug'] }")):
        settings = tmp_path / f"{code}.toml"
        settings.write_text(f"[quality]\n{rule}\n")
        outcome = enrich("describe", "Blue mug", "--engine", "echo", "--config", settings)
        assert (outcome.status, outcome.printed) == (0, "Blue mug\n")
        said[code] = outcome.said
    assert [said[code].startswith(f"{code}: ") for code in said] == [True, True]
    # The control: by default nothing speaks against it.
    assert enrich("describe", "Blue mug", "--engine", "echo").said == ""
    assert set(get_args(Code)) <= _MEANINGS.keys()


def test_what_publication_would_say_is_said(enrich: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = tmp_path / "short.toml"
    short.write_text("[text]\nmax_new_tokens = 4\n")
    outcome = enrich("describe", "Blue mug", "--engine", "echo", "--config", short)
    assert outcome.printed == "Blu\n"
    assert outcome.said.startswith("cut_off: ")
    saying(monkeypatch, " A  mug. [INST]")
    outcome = enrich("describe", "Mug", "--engine", "echo")
    assert outcome.printed == "A  mug. [INST]\n"
    assert "would be published" in outcome.said
    saying(monkeypatch, " A mug.\n")
    assert enrich("describe", "Mug", "--engine", "echo").said == ""
    saying(monkeypatch, " \n ")
    assert enrich("describe", "Mug", "--engine", "echo").said.startswith("empty: ")


def test_nothing_a_model_says_acts_on_the_terminal(enrich: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    saying(monkeypatch, "A \x1b[2J\x9b31m\u202emug\r\nfor\ttea")
    printed = enrich("describe", "Mug", "--engine", "echo").printed
    assert printed == "A \\x1b[2J\\x9b31m\\u202emug\\r\nfor\\ttea\n"
    line = enrich("describe", "Mug", "--engine", "echo", "--json").printed
    assert line.endswith("}\n")
    assert line[:-1].isprintable()


@pytest.mark.parametrize("character", ["\x7f", "\x9b", "\u202e", "\U000e0041"])
def test_what_json_escapes_it_gives_back(enrich: Command, monkeypatch: pytest.MonkeyPatch, character: str) -> None:
    from enrich.describe import _json_line

    line = _json_line({"text": f"a{character}é"})
    assert line.isprintable()
    assert "é" in line
    assert json.loads(line) == {"text": f"a{character}é"}


# Piped


def test_each_line_in_is_a_line_out(enrich: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, b'Blue mug\n\n!!\nCaneca azul marca="A B"\r\nBad \xff byte\nlast')
    found = answers(enrich("describe", "--engine", "echo"))
    assert [(each["title"], each["text"], each["flags"]) for each in found] == [
        ("Blue mug", "Blue mug", []),
        ("", None, ["no_title"]),
        ("!!", None, ["unusable_title"]),
        ("Caneca azul", "Caneca azul; marca: A B", []),
        ("Bad \ufffd byte", "Bad \ufffd byte", []),
        ("last", "last", []),
    ]
    assert found[3]["attributes"] == {"marca": "A B"}
    assert [each["ended"] for each in found[:3]] == ["eos", "rejected", "rejected"]
    assert [each["tokens"] for each in found[:2]] == [len(" Blue mug"), 0]
    assert all(each["seconds"] >= 0 for each in found)
    assert list(found[0]) == ["title", "attributes", "text", "flags", "ended", "tokens", "seconds", "unsupported"]


def test_what_cannot_be_written_says_why(enrich: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "narrow.toml").write_text("[text]\nmax_prompt_tokens = 90\n")
    piped(monkeypatch, b"Blue " * 30 + b"\n")
    (cut,) = answers(enrich("describe", "--engine", "echo", "--config", tmp_path / "narrow.toml"))
    assert cut["flags"] == ["title_cut"]
    assert cut["text"].startswith("Blue Blue")
    saying(monkeypatch, "", "failed")
    piped(monkeypatch, b"Mug\n")
    (failed,) = answers(enrich("describe", "--engine", "echo"))
    assert (failed["text"], failed["flags"], failed["ended"]) == (None, ["model_failed"], "failed")
    monkeypatch.setattr(ByteTokenizer, "encode_texts", lambda _, texts: [None] * len(texts))
    piped(monkeypatch, b"Mug\n")
    (refused,) = answers(enrich("describe", "--engine", "echo"))
    assert (refused["text"], refused["flags"], refused["ended"]) == (None, ["control_token"], "refused")


def test_an_answer_that_cannot_be_written_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "enrich", "describe", "--engine", "echo"],
            input="Mug\n",
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
            check=False,
        )
    assert done.returncode == 74
    assert done.stderr == "enrich: standard output: cannot be written: No space left on device\n"


# Growing


@given(st.text(st.sampled_from("a \n\u00e9\u20ac\U0001f600"), max_size=12), st.integers(0, 3))
def test_a_text_grows_without_a_broken_character(text: str, num_cut: int) -> None:
    growing = _Growing(lambda ids: bytes(ids).decode(errors="replace"))
    content = text.encode()[: len(text.encode()) - num_cut]
    pieces = [growing.add(token) for token in content]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == growing.shown == content.decode(errors="ignore").lstrip()


# Base and adapter


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The flags of a tiny model that has an adapter."""
    folder = tmp_path_factory.mktemp("trained")
    base = build_tiny(folder / "base")
    settings = folder / "enrich.toml"
    # What a model of random weights says is no description: no matter here.
    actions = ", ".join(f'{code} = "{action}"' for code, action in PUBLISH_ALL["actions"].items())
    settings.write_text(
        '[text]\ntemplate = "<s> w9 {title} w8"\nmax_new_tokens = 12\n[machine]\ndevice = "cpu"\n'
        f"[quality]\nmin_score = {PUBLISH_ALL['min_score']}\nactions = {{ {actions} }}\n"
    )
    adapter = build_adapter(folder / "adapter", base)
    return ["--base", str(base), "--adapter", str(adapter), "--config", str(settings)]


def test_base_and_adapter_are_compared(enrich: Command, monkeypatch: pytest.MonkeyPatch, trained: list[str]) -> None:
    def asked(*flags: str) -> list[dict[str, Any]]:
        piped(monkeypatch, b"w20 w30 w40\n!\n")
        outcome = enrich("describe", *trained, *flags)
        assert outcome.status == 0
        return [json.loads(line) for line in outcome.printed.splitlines()]

    both, nothing = asked("--compare")
    assert (nothing["flags"], nothing["base"]["flags"]) == (["unusable_title"], ["unusable_title"])
    for found, alone in ((both, asked()[0]), (both["base"], asked("--adapter", "none")[0])):
        assert found["text"] == alone["text"]
        assert found["tokens"] == alone["tokens"] > 0
    assert both["text"] != both["base"]["text"]


def test_texts_are_those_of_a_run(
    enrich: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trained: list[str]
) -> None:
    rows = [{"title": f"w{i} w{i + 7}  w{i + 9}", "brand": f"w{i + 3}", "description": None} for i in range(20, 30)]
    catalogue = write_catalogue(tmp_path / "catalogue.jsonl", rows)
    output = tmp_path / "enriched.parquet"
    ran = enrich("run", catalogue, *trained, "--attributes", "brand", "--output", output, output=output)
    assert ran.status == 0
    piped(monkeypatch, "".join(f"{row['title']} brand={row['brand']}\n" for row in rows).encode())
    told = [json.loads(line) for line in enrich("describe", *trained).printed.splitlines()]
    published = [(row["description"], row["enrich_flags"]) for row in ran.rows]
    assert [(each["text"], each["flags"]) for each in told] == published
    assert len({text for text, _ in published}) > 5


def test_a_comparison_fills_the_terminal(enrich: Command, monkeypatch: pytest.MonkeyPatch, trained: list[str]) -> None:
    monkeypatch.setenv("COLUMNS", "43")
    outcome = enrich("describe", "w20 w30 w40", *trained, "--compare")
    rows = outcome.printed.splitlines()
    assert rows[0].split() == ["base", "│", "base", "with", "adapter"]
    assert rows[1] == "-" * 20 + " │ " + "-" * 20
    assert len(rows) > 3
    assert all(len(row) <= 43 and row[21:22] == "│" for row in rows)


@pytest.mark.parametrize("columns", [10, 40, 81])
def test_columns_hold_whatever_is_written(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    written = Text("A blue mug.\n\nこれは青いマグカップです。" + "x" * 99 + "\x1b[2J", ("cut_off",), "length")
    texts = [written, Text(None, ("empty",), "eos")]
    rows = list(side_by_side(["base", "base with adapter"], texts))
    assert all(row.isprintable() and monospaced_width(row) <= max(columns, 35) for row in rows)
    left = "".join(row.split(" │")[0].strip() for row in rows)
    assert "青いマグカップ" in left.replace(" ", "")
    assert "\\x1b[2J" in left
    assert any(row.endswith("│ empty") for row in rows)


def test_there_must_be_something_to_compare(enrich: Command) -> None:
    outcome = enrich("describe", "Mug", "--engine", "echo", "--compare")
    assert outcome.status == 64
    assert "--adapter" in outcome.error


# The terminal


def test_a_text_appears_as_it_is_written_and_can_be_abandoned(tmp_path: Path) -> None:
    with terminal(tmp_path) as session:
        session.type("Blue mug of thick stoneware, for tea, four hundred millilitres\n")
        session.expect("\nBlue mug of")  # behind the line that was typed
        session.type(CTRL_C)
        session.expect("> ")
        assert "millilitres" in session.shown
        assert session.shown.count("millilitres") == 1
        session.type("Red mug brand=Acme\n")
        session.expect("\nRed mug; brand: Acme")
        session.expect("> ")
        session.type("??\n")
        session.expect("unusable_title: ")
        # Typed before the prompt is there, Ctrl-D may be lost with the terminal's mode.
        session.expect("> ")
        session.type("\n")
        session.expect("> ")
        session.type(CTRL_D)
        assert session.status() == 0
    assert "Traceback" not in session.shown
    history = tmp_path / "enrich" / "describe.history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert "Red mug brand=Acme" in history.read_text().splitlines()


def test_the_second_interruption_leaves(tmp_path: Path) -> None:
    with terminal(tmp_path, "--json") as session:
        session.type("half a ti")
        session.interrupt()
        session.expect("Ctrl-C again")
        session.expect("> ")
        session.type("Mug\n")
        session.expect('"text": "Mug"')
        session.expect("> ")
        session.interrupt()
        session.expect("Ctrl-C again")
        session.expect("> ")
        session.interrupt()
        assert session.status() == 0
    assert "Traceback" not in session.shown


def test_earlier_lines_come_back(tmp_path: Path) -> None:
    (tmp_path / "enrich").mkdir()
    (tmp_path / "enrich" / "describe.history").write_text("Red mug\nBlue mug\n")
    up = "\x10"  # Ctrl-P, as the arrow
    with terminal(tmp_path) as session:
        session.type(f"{up}{up}\n")
        session.expect("\nRed mug")
        session.expect("> ")
        session.type("exit\n")
        assert session.status() == 0


def test_it_needs_no_readline(tmp_path: Path) -> None:
    with terminal(tmp_path, "--no-readline") as session:
        session.type("Blue mug\n")
        session.expect("\nBlue mug")
        session.type("exit\n")
        assert session.status() == 0
    assert "Traceback" not in session.shown
    assert not list(tmp_path.iterdir())


def test_it_needs_no_place_for_its_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "enrich").write_text("a file where the folder would be")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    answered = []
    with _history():
        answered.append("Mug")
    assert answered
    assert [path.name for path in tmp_path.iterdir()] == ["enrich"]


def test_an_interruption_without_a_terminal_is_one_line() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, "Mug " * 40],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == "M"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 75
    assert said == "enrich: interrupted\n"
