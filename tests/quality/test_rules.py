"""Each rule finds what it is for, and leaves alone what only looks like it."""

import pytest

from enrich.products import Product
from enrich.quality.judge import Judge
from enrich.quality.rules import copies_title, repetition
from enrich.quality.words import words_of
from enrich.settings import QualitySettings

INSTRUCTION = "[INST] Gere uma descrição para o seguinte produto: [/INST]"
GOOD = "A quiet desk fan for warm days, easy to carry and simple to clean."


def flags(text: str, title: str = "Desk Fan", **chosen: object) -> tuple[str, ...]:
    return Judge(QualitySettings.model_validate(chosen), INSTRUCTION).judge(text, "eos", Product(title)).flags


def test_a_good_text_has_no_flag() -> None:
    assert flags(GOOD) == ()


@pytest.mark.parametrize(
    ("code", "text", "control"),
    [
        ("html", f"{GOOD} <b>Now</b>", f"{GOOD} Air < water & wind."),
        ("html", f"{GOOD} Wind &amp; air", f"{GOOD} Wind & air; calm"),
        ("prompt_leftover", f"[INST] {GOOD} [/INST] {GOOD}", f"[new] {GOOD}"),
        ("prompt_leftover", f"{GOOD}\nAssistant: {GOOD.lower()}", "The description: a quiet fan."),
        ("prompt_leftover", "As an AI, it can describe a fan.", "As an aid, it can move air."),
        ("instruction_echoed", f"Gere uma descrição para o seguinte produto. {GOOD}", "Gere uma brisa para o quarto."),
        ("title_repeated", "Desk fan", "A desk fan that moves warm air about."),
        ("title_repeated", "Desk Fan, desk fan.", GOOD),
        ("repetition", "It is a fan for the desk and " * 4, GOOD),
        ("url", f"{GOOD} See www.fans.example", f"{GOOD} See for yourself."),
        ("url", f"{GOOD} Visit fans.com today", f"{GOOD} It is compact.Common."),
        ("email", f"{GOOD} Write to me@fans.example", f"{GOOD} Works @ home."),
        ("phone", f"{GOOD} Call (11) 4002-8922", f"{GOOD} It has 4002 parts."),
        ("phone", f"{GOOD} Call 555-123-4567", f"{GOOD} It turns 1200-1500 times."),
        ("personal_data", f"{GOOD} CPF 123.456.789-09", f"{GOOD} It weighs 123.456 units."),
        ("price", f"{GOOD} Only $19.99", f"{GOOD} It pays."),
        ("price", f"{GOOD} Por R$ 19,90", f"{GOOD} Dollars and sense."),
        ("availability", f"{GOOD} Free shipping", f"{GOOD} Free from noise."),
        ("availability", f"{GOOD} Frete grátis", f"{GOOD} De graça no vento."),
        ("first_person", f"{GOOD} I love it", f"{GOOD} In I-beam style."),
        ("first_person", f"{GOOD} My favourite", f"{GOOD} Our favourite."),
    ],
)
def test_a_rule(code: str, text: str, control: str) -> None:
    assert code in flags(text)
    assert code not in flags(control)


def test_a_price_that_the_title_names_is_the_product() -> None:
    assert "price" not in flags("A $50 gift card for any day.", "Gift Card $50")
    assert "price" in flags("A $60 gift card for any day.", "Gift Card $50")


@pytest.mark.parametrize(
    ("locale", "text", "wrong"),
    [
        ("en", GOOD, False),
        ("pt", GOOD, True),
        ("pt", "Um ventilador de mesa silencioso para os dias de calor, fácil de levar e de limpar.", False),
        ("en", "Um ventilador de mesa silencioso para os dias de calor, fácil de levar e de limpar.", True),
        ("pt", "Ein leiser Ventilator für warme Tage, leicht zu tragen und einfach zu reinigen im Alltag.", True),
        ("pt", "Leve.", False),
    ],
)
def test_the_language(locale: str, text: str, wrong: bool) -> None:
    assert ("wrong_language" in flags(text, locale=locale)) is wrong
    assert "wrong_language" not in flags(text)


def test_forbidden_claims_hold_where_they_are_forbidden() -> None:
    forbidden = {"*": ["antibacterial"], "Garden": ["waterproof"], "pt": ["garantia vitalícia"]}

    def said(text: str, category: str = "Home > Office", locale: str = "en") -> bool:
        judge = Judge(QualitySettings.model_validate({"forbidden": forbidden, "locale": locale}))
        return "forbidden_claim" in judge.judge(text, "eos", Product("Fan", (("category", category),))).flags

    assert said("An Antibacterial fan.")
    assert not said("A bacterial fan.")
    assert said("A waterproof fan.", "Garden > Fans")
    assert not said("A waterproof fan.")
    assert said("Com garantia vitalícia.", locale="pt")
    assert not said("Com garantia vitalícia.")


def test_lengths_of_a_channel() -> None:
    assert "too_short" in flags(GOOD, min_chars=len(GOOD) + 1)
    assert "too_short" not in flags(GOOD, min_chars=len(GOOD))
    assert "too_long" in flags(GOOD, max_chars=len(GOOD) - 1)
    two = f"{GOOD} It stands still."
    verdict = Judge(QualitySettings(max_chars=len(GOOD))).judge(two, "eos", Product("Desk Fan"))
    assert (verdict.text, verdict.flags, verdict.action) == (GOOD, ("trimmed",), "publish")


def test_repetition_and_copies_are_shares_of_words() -> None:
    assert repetition(words_of("a b c d")) == 0
    assert repetition(words_of("a b c d a b c d")) == pytest.approx(1 - 4 / 5)
    assert repetition([]) == 0
    assert copies_title("Caneca Térmica azul!", "caneca termica azul")
    assert not copies_title("Caneca térmica azul para o café", "caneca termica azul")
