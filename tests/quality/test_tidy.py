"""A completion is tidied, cut back to a full sentence where it was cut off, and otherwise left as it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich import text
from enrich.quality import tidy as tidying
from enrich.quality.tidy import tidy, to_full_sentence


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
    assert tidy(completion) == text


@pytest.mark.parametrize(
    "text",
    ["[NEW] A mug </b>", "A <b>mug</b> [INST] of 5 < 6 </s> litres", "“Água” — 30 % & more…", "Mug (a> b]", "x>"],
)
def test_nothing_else_is_altered(text: str) -> None:
    assert tidy(text) == text


@pytest.mark.parametrize("completion", ["", " \n\t", "\x00\u200b", "</s>", "[/INST] <|im_end|> "])
def test_nothing_may_be_left(completion: str) -> None:
    assert tidy(completion) == ""


@pytest.mark.parametrize(
    ("text", "limit", "whole"),
    [
        ("A mug. It keeps", None, "A mug."),
        ("A mug! It keeps tea. Of 2.5", None, "A mug! It keeps tea."),
        ("A mug of 2.5 cm by", None, None),
        ("Uma caneca (para chá.) Com", None, "Uma caneca (para chá.)"),
        ("“A mug.” It", None, "“A mug.”"),
        ("One. Two. Three.", 9, "One. Two."),
        ("One. Two. Three.", 8, "One."),
        ("One. Two. Three.", 3, None),
        ("By J. Smith for", None, None),
        ("", None, None),
    ],
)
def test_a_cut_end_goes_back_to_the_last_full_sentence(text: str, limit: int | None, whole: str | None) -> None:
    assert to_full_sentence(text, limit) == whole


@given(st.text(st.sampled_from("ab<>/s[]INST| \n\t\r\x00\ufffd\u00e9"), max_size=30))
def test_a_tidy_text_stays_as_it_is(completion: str) -> None:
    text = tidy(completion)
    assert tidy(text) == text


def test_what_is_removed_from_titles_is_removed_from_texts() -> None:
    """Said twice, because neither room may know the other."""
    assert tidying._CONTROL.pattern == text._REMOVED.pattern
