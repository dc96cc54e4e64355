"""Only an adapter that is better on every count is promoted, and noise alone is neither better nor worse."""

import random
from dataclasses import replace
from math import nan

import pytest

from train.measuring.gate import MAX_TOLERANCE, decide, refuse, tolerance
from train.measuring.measures import Figures

IN_FORCE = Figures(
    num_rows=400,
    num_tokens=20_000,
    loss=2.0,
    loss_per_byte=0.5,
    chrf=25.0,
    rouge_l=0.2,
    ended=0.99,
    length_ratio=1.0,
    distinct_openings=0.5,
    title_copies=0.0,
    repetition=0.05,
    num_numbers=300,
    unsupported_numbers=0.2,
    texts_with_unsupported=0.2,
    texts_with_claims=0.3,
    held=0.4,
)
BETTER = replace(IN_FORCE, loss=1.9, loss_per_byte=0.475)


def test_a_better_adapter_is_promoted_with_everything_that_was_compared() -> None:
    decision = decide(BETTER, IN_FORCE)
    assert decision.promoted
    assert len(decision.reasons) == 4
    assert "loss 0.4750 against 0.5000" in decision.reasons[0]
    assert decision.figures == BETTER


@pytest.mark.parametrize(
    ("worse", "reason"),
    [
        ({"loss_per_byte": 0.5}, "loss 0.5000"),
        ({"loss_per_byte": nan}, "loss nan"),
        ({"ended": 0.979}, "97.9% of the texts end"),
        ({"ended": nan}, "end by themselves"),
        ({"texts_with_unsupported": 0.23}, "numbers that are not the product's: 23.0% against 20.0%"),
        ({"repetition": 0.08}, "repeated 4-grams: 8.0% against 5.0%"),
        ({"repetition": nan}, "repeated 4-grams: nan"),
    ],
)
def test_an_adapter_that_is_worse_in_one_thing_is_not_promoted(worse: dict[str, float], reason: str) -> None:
    decision = decide(replace(BETTER, **worse), IN_FORCE)
    assert not decision.promoted
    assert len(decision.reasons) == 1
    assert reason in decision.reasons[0]


def test_all_that_speaks_against_an_adapter_is_said() -> None:
    decision = decide(replace(IN_FORCE, ended=0.5, repetition=0.5, texts_with_unsupported=0.9), IN_FORCE)
    assert not decision.promoted
    assert len(decision.reasons) == 4


def test_a_share_that_is_worse_by_chance_alone_does_not_decide() -> None:
    assert decide(replace(BETTER, texts_with_unsupported=0.2 + MAX_TOLERANCE, repetition=0.06), IN_FORCE).promoted


def test_few_rows_excuse_nothing_and_many_rows_little() -> None:
    few, many = replace(IN_FORCE, num_rows=4), replace(IN_FORCE, num_rows=100_000)
    assert not decide(replace(BETTER, num_rows=4, repetition=0.0701), few).promoted
    assert not decide(replace(BETTER, num_rows=100_000, repetition=0.0511), many).promoted
    assert decide(replace(BETTER, num_rows=100_000, repetition=0.0509), many).promoted


def test_where_nothing_was_wrong_nothing_may_be() -> None:
    clean = replace(IN_FORCE, repetition=0.0)
    assert not decide(replace(BETTER, repetition=0.001), clean).promoted
    assert decide(replace(BETTER, repetition=0.0), clean).promoted


def test_the_tolerance_is_one_standard_error_of_the_difference() -> None:
    dice, share, num_rows = random.Random(0), 0.01, 1000
    counts = [sum(dice.random() < share for _ in range(num_rows)) for _ in range(400)]
    differences = [(one - two) / num_rows for one, two in zip(counts[::2], counts[1::2], strict=True)]
    deviation = (sum(each**2 for each in differences) / len(differences)) ** 0.5
    assert tolerance(share, num_rows) == pytest.approx(deviation, rel=0.15)
    assert tolerance(share, num_rows) < MAX_TOLERANCE


def test_what_cannot_be_compared_is_not_promoted_and_says_why() -> None:
    decision = refuse(BETTER, "does not record its split")
    assert (decision.promoted, decision.reasons) == (False, ("does not record its split",))
