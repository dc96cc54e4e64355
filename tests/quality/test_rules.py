"""The first rules tidy a text, hold an empty one, and alter nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.quality.rules import Verdict, judge


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        (" A blue mug. ", "A blue mug."),
        ("A  blue\t mug.", "A blue mug."),
        ("One.\n \n\n\nTwo.", "One.\n\nTwo."),
        ("- one\n- two", "- one\n- two"),
        ("A\x00 mug\x1b\u200b\u202e.", "A mug."),
        ("one\rtwo\u2028three", "one two three"),
        (" A mug. </s>", "A mug."),
        ("<s> [INST] A mug. [/INST] </s><|im_end|>", "A mug."),
        ("A mug. [INST]\n", "A mug."),
        ("Um copo de a\ufffd", "Um copo de a"),
    ],
)
def test_a_completion_is_tidied(completion: str, text: str) -> None:
    assert judge(completion, "eos") == Verdict(text)


@pytest.mark.parametrize(
    "text",
    ["[NEW] A mug </b>", "A <b>mug</b> [INST] of 5 < 6 </s> litres", "“Água” — 30 % & more…", "Mug (a> b]", "x>"],
)
def test_nothing_else_is_altered(text: str) -> None:
    assert judge(text, "eos").text == text


@pytest.mark.parametrize("completion", ["", " \n\t", "\x00\u200b", "</s>", "[/INST] <|im_end|> "])
@pytest.mark.parametrize("ended", ["eos", "length"])
def test_when_nothing_is_left_nothing_may_be_published(completion: str, ended: str) -> None:
    verdict = judge(completion, ended)
    assert verdict.text is None
    assert "empty" in verdict.flags


def test_a_text_that_the_limit_ended_says_so() -> None:
    assert judge("A mug of", "length") == Verdict("A mug of", ("cut_off",))
    assert judge("A mug of", "eos") == Verdict("A mug of", ())


@given(st.text(st.sampled_from("ab<>/s[]INST| \n\t\r\x00\ufffd\u00e9"), max_size=30))
def test_a_tidy_text_stays_as_it_is(completion: str) -> None:
    text = judge(completion, "eos").text
    assert text is None or judge(text, "eos") == Verdict(text)
