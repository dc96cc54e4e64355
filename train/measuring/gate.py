"""Whether a new adapter is better than what is in force. Knows figures only."""

from dataclasses import dataclass
from math import sqrt

from train.measuring.measures import Figures

MIN_ENDED = 0.98
"""Share of texts that must end by themselves: one that does not stop is the commonest failure of an adapter."""

MAX_TOLERANCE = 0.02
"""However few the rows, a share that is worse by more than this is worse."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to promote, and why: everything that was compared, or what spoke against it.

    `figures` are those of the new adapter.
    """

    promoted: bool
    reasons: tuple[str, ...]
    figures: Figures


def decide(new: Figures, in_force: Figures) -> Decision:
    """Promotes an adapter with a lower loss, texts that end, and no more inventions or repetitions.

    Both must be measured on the same rows, and neither may have been trained on any of them. Loss is compared
    strictly: it is an average over every token of the same texts. The shares are counts over a few hundred greedy
    texts, so one standard error of their difference is not a difference, see `tolerance`. A figure that is not a
    number promotes nothing.
    """
    checks = (
        (new.loss_per_byte < in_force.loss_per_byte, _loss(new, in_force)),
        (new.ended >= MIN_ENDED, f"{new.ended:.1%} of the texts end by themselves; {MIN_ENDED:.0%} are needed"),
        _no_worse(
            "texts with numbers that are not the product's",
            new.texts_with_unsupported,
            in_force.texts_with_unsupported,
            new.num_rows,
        ),
        _no_worse("repeated 4-grams", new.repetition, in_force.repetition, new.num_rows),
    )
    promoted = all(holds for holds, _ in checks)
    return Decision(promoted, tuple(reason for holds, reason in checks if holds is promoted), new)


def refuse(new: Figures, reason: str) -> Decision:
    """The decision when there is nothing sound to compare."""
    return Decision(False, (reason,), new)


def tolerance(share: float, num_rows: int) -> float:
    """How much worse than `share` another share of `num_rows` may be by chance alone.

    One standard error of the difference of two binomial shares, sqrt(2 p (1 - p) / n), and at most
    `MAX_TOLERANCE`. No other share of values between 0 and 1 varies more than a binomial one (Bhatia and Davis
    2000), so it holds for a mean of shares too.
    """
    return min(sqrt(2 * share * (1 - share) / num_rows), MAX_TOLERANCE)


def _no_worse(what: str, new: float, in_force: float, num_rows: int) -> tuple[bool, str]:
    allowed = in_force + tolerance(in_force, num_rows)
    return new <= allowed, f"{what}: {new:.1%} against {in_force:.1%}, up to {allowed:.1%} is chance"


def _loss(new: Figures, in_force: Figures) -> str:
    return f"loss {new.loss_per_byte:.4f} against {in_force.loss_per_byte:.4f} nats per byte of text"
