"""Cleaning leaves readable text: nothing hidden, nothing lost that is no markup, and nothing to clean again."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich import text as text_module
from enrich.text import clean, is_usable, printable

PIECES = """
< > & ; &amp; &lt; &#60; &#x26; amp; lt; #38; <b </b> <br/> class=" ' " = <!-- --> <script> </script>
</s> [/INST] <|im_end|> Ã© â€™ ﬁ
"""
UNSEEN = ["<p ", "\x93", "\u00a0", "\u200b", "\u202e", "\x00", "\x1b[31m", "\n", "  ", "e\u0301", "\u037e"]
MARKUP = st.lists(st.sampled_from([*PIECES.split(), *UNSEEN]) | st.text(max_size=4)).map("".join)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Caneca <b>azul</b>", "Caneca azul"),
        ("H<sub>2</sub>O", "H2O"),
        ("one<br>two<BR />three", "one two three"),
        ("<ul><li>soft</li><li>warm</li></ul>", "soft warm"),
        ("<p style='a>b' class=\"x\">first</p><p>second</p>", "first second"),
        ('<a title="it\'s" href=x>link</a>', "link"),
        ("keep<script>var a = '<b>';</script><style>p {}</style>this", "keep this"),
        ("keep<!-- not <b>this</b> -->that", "keep that"),
        ("Valentine&#39;s &amp; Mother&rsquo;s", "Valentine's & Mother’s"),
        ("best&amp;#8211;selling", "best–selling"),
        ("&amp;amp;lt;b&amp;amp;gt;x", "x"),
        ("&" + "amp;" * 20 + "lt;b&gt;x", "x"),
        ("&" + "#38;#x26;" * 20 + "lt;b&gt;x", "x"),
        ("e\u200b\u0301", "é"),
        ("&lt;p&gt;escaped&lt;/p&gt;", "escaped"),
        ("cafÃ© &Atilde;&copy;", "café é"),
        ("donâ€™t", "don’t"),
        ("\x93quoted\x94 and so on\x85", "“quoted” and so on…"),
        ("e\u0301", "é"),
        (" a\t\r\n\u00a0\u3000b ", "a b"),
        ("a\x00b\u200bc\u202ed\ufeffe\u00adf\x7fg", "abcdefg"),
        ("a\U000e0041b", "ab"),
        ("\x1b[31mred\x1b[0m", "red"),
    ],
)
def test_markup_and_damage_become_text(raw: str, expected: str) -> None:
    assert clean(raw) == expected


@pytest.mark.parametrize(
    "text",
    [
        "5 < 6",
        "I <3 tea",
        "a <b and c> d",
        "up to <p",
        "</s>",
        "<s>",
        "Mug </s> blue",
        "<|im_end|>",
        "<|im_start|>system",
        "[INST] x [/INST]",
        "<tool_call>x</tool_call>",
        "<think>",
        "AT&T R&D",
        "Home&paradise",
        "Bed&notebook; lamp",
        "?a=1&copy=2",
        "“curly” ‘quotes’",
        "ﬁne ＦＵＬＬ ㎏ ½",
        "Água Perfumada Feminina Maracujá",
        "às vezes É ÓTIMO – não",
        "{title} %s ${HOME}",
        "电气 ของแท้ 👍🏽",
    ],
)
def test_what_is_no_markup_stays(text: str) -> None:
    assert clean(text) == text
    assert clean(f"<b>{text}</b>") == text


@pytest.mark.parametrize("token", ["</s>", "<s>", "<tool_call>", "<|im_end|>"])
def test_an_escaped_control_token_is_text_too(token: str) -> None:
    assert clean(token.replace("<", "&lt;").replace(">", "&gt;")) == token


@given(MARKUP)
def test_cleaning_is_idempotent_and_leaves_one_visible_line(raw: str) -> None:
    text = clean(raw)
    assert clean(text) == text
    assert text == " ".join(text.split())
    assert unicodedata.is_normalized("NFC", text)
    assert not any(unicodedata.category(each) in {"Cc", "Cs"} or each in "\u200b\u202e\u2066\ufeff" for each in text)


@given(st.text(st.characters(max_codepoint=0x17F) | st.sampled_from("–—‘’“”…€™ Ã©â")))
def test_the_fast_path_says_what_the_whole_way_would(raw: str) -> None:
    taken = raw.strip()
    if text_module._ORDINARY.fullmatch(taken) and clean(taken) == taken:
        assert text_module._clean_once(taken) == taken


def test_the_fast_path_is_not_taken_by_mojibake() -> None:
    damaged = "SÃ£o Paulo"
    assert text_module._ORDINARY.fullmatch(damaged)
    assert clean(damaged) == "São Paulo"


@pytest.mark.parametrize(
    "raw",
    [
        "<b" * 400 + ">" * 400,
        "&" + "amp;" * 400 + "lt;b&gt;",
        "&" + "#38;" * 400 + "lt;",
        "&l<b></b>t;" * 50 + "b>",
        "".join("&am" for _ in range(200)) + "".join("p;" for _ in range(200)),
        "<script>" * 400,
        "<!--" * 400,
        '<b a="' * 400,
    ],
)
def test_what_is_nested_on_purpose_comes_to_an_end(raw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    once = text_module._clean_once
    monkeypatch.setattr(text_module, "_clean_once", lambda text: passes.append(1) or once(text))
    text = clean(raw)
    assert len(passes) <= 2 * text_module._MAX_PASSES
    assert clean(text) == text


@pytest.mark.parametrize(
    ("title", "usable"),
    [("Mug", True), ("7", True), ("电", True), ("é!", True), ("", False), ("👍🏽", False), ("--- …", False)],
)
def test_a_title_needs_a_letter_or_a_digit(title: str, usable: bool) -> None:
    assert is_usable(title) is usable


@pytest.mark.parametrize("raw", ["\u200b\u200d", "<br><br>", "&nbsp;", "\u3164\u3164", " \x00 "])
def test_what_shows_nothing_is_not_usable(raw: str) -> None:
    assert not is_usable(clean(raw))


@given(st.text())
def test_printable_text_is_one_harmless_line(raw: str) -> None:
    shown = printable(raw)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


def test_printable_shows_what_it_escapes_and_leaves_the_rest() -> None:
    assert printable("Água\n\x1b[2Jx\u202e\x9b\ud800") == r"Água\n\x1b[2Jx\u202e\x9b\ud800"
