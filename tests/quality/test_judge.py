"""The verdict follows from the codes, the policy decides, and no text with an invented number is ever published."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from enrich.products import Product
from enrich.quality.judge import Judge
from enrich.quality.score import DEDUCTIONS, MEANINGS, action, score
from enrich.settings import Code, QualitySettings

JUDGE = Judge(QualitySettings())
UNITS = ["cm", "kg", "ml", "W", "inch", "oz", "%", "hours", "litros", "anos"]
TEXTS = ["It weighs or measures {}.", "Com {} para o seu dia.", "With {}, it lasts.", "Boasting {} of pure joy!"]


def test_every_code_has_its_points_and_default() -> None:
    assert set(DEDUCTIONS) == set(MEANINGS) == set(Code.__args__)  # type: ignore[attr-defined]
    assert score([]) == 100
    assert score(["cut_off", "trimmed"]) == 55
    assert score(["empty", "html"]) == 0


def test_the_gravest_action_decides() -> None:
    assert action([], 100, 50, {}) == "publish"
    assert action(["trimmed"], 95, 50, {}) == "publish"
    assert action(["trimmed"], 95, 96, {}) == "retry"
    assert action(["trimmed", "url"], 35, 0, {}) == "retry"
    assert action(["trimmed", "url"], 35, 0, {"url": "publish"}) == "publish"
    assert action(["trimmed", "url"], 35, 0, {"trimmed": "hold"}) == "hold"


def test_a_policy_is_named_by_all_that_decides_a_verdict() -> None:
    judges = [
        JUDGE,
        Judge(QualitySettings(), "Describe"),
        Judge(QualitySettings(), repeats_the_product=True),
        *(
            Judge(QualitySettings.model_validate(chosen))
            for chosen in (
                {"locale": "en"},
                {"min_score": 60},
                {"min_chars": 5},
                {"max_chars": 500},
                {"actions": {"url": "hold"}},
                {"forbidden": {"*": ["x"]}},
                {"terms": {"brand": ["x"]}},
                {"allowed": ["x"]},
            )
        ),
    ]
    assert len({judge.policy for judge in judges}) == len(judges)
    assert Judge(QualitySettings(retries=7)).policy == JUDGE.policy


def test_an_end_that_was_cut_off_is_cut_back() -> None:
    found = JUDGE.judge("A mug for tea. It keeps", "length", Product("Mug"))
    assert (found.text, found.flags, found.score, found.action) == ("A mug for tea.", ("trimmed",), 95, "publish")
    found = JUDGE.judge("A mug that keeps", "length", Product("Cup"))
    assert (found.text, found.flags, found.action) == ("A mug that keeps", ("cut_off",), "retry")
    assert JUDGE.judge("A mug that keeps", "eos", Product("Cup")).flags == ()


def test_spans_are_shown_with_their_kinds() -> None:
    text = "A copper mug of 350 ml."
    spans = JUDGE.spans(text, Product("Steel Mug"))
    assert [(span.kind, text[span.start : span.end]) for span in spans] == [
        ("material", "copper"),
        ("number", "350 ml"),
    ]


def test_a_text_that_is_the_product_itself_is_held_to_the_operators_rules_alone() -> None:
    judge = Judge(QualitySettings.model_validate({"forbidden": {"*": ["miracle"]}}), repeats_the_product=True)
    assert judge.judge("Mug 350 ml www.mugs.example", "eos", Product("Mug")).action == "publish"
    assert judge.judge("Miracle mug", "eos", Product("Miracle mug")).action == "retry"


numbers = st.integers(13, 9999)


@given(numbers, numbers, st.sampled_from(UNITS), st.sampled_from(TEXTS), st.booleans())
def test_no_text_with_an_invented_number_is_published(
    said: int, invented: int, unit: str, text: str, in_attribute: bool
) -> None:
    assume(said != invented)
    known = f"{said} {unit}"
    product = Product("Thing", (("size", known),)) if in_attribute else Product(f"Thing {known}")
    assert JUDGE.judge(text.format(f"{invented} {unit}"), "eos", product).action != "publish"
    assert JUDGE.judge(text.format(known), "eos", product).action == "publish"


@pytest.mark.parametrize(
    "instead", ["4.5 kg", "WX-460", "750 ml", '1-9/16"', "eight pieces", "2.5 hours", "1999", "30%"]
)
def test_planted_in_a_good_text_a_number_is_found(instead: str) -> None:
    row = Product('Kettle WX-450, 500 ml, 9/16" spout, set of two')
    good = "A kettle for calm mornings with {}, easy to fill and simple to clean."
    assert JUDGE.judge(good.format("a spout"), "eos", row).action == "publish"
    assert "unsupported_number" in JUDGE.judge(good.format(instead), "eos", row).flags
