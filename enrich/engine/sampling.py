"""Which token comes next: the likeliest, or one drawn by lot whose lot depends on nothing but the row.

The draw is the Gumbel-max trick (Gumbel 1954; Maddison et al. 2014, A* Sampling): the likeliest token after noise is
added to each logit. The noise is a hash of seed, key, attempt, position and token (splitmix64: Steele et al. 2014, Fast
Splittable Pseudorandom Number Generators), so that neither neighbours nor interruptions change a text.
"""

import hashlib
from dataclasses import dataclass, replace

import torch

from enrich.settings import TextSettings

# The constants of splitmix64, as signed 64-bit numbers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))
_NOISE_BITS = 24
# Near enough to the likeliest text to be as good, far enough to be another. No setting: it would change every key.
_TEMPERATURE_AGAIN, _TOP_P_AGAIN = 0.7, 0.9


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 takes the likeliest; `top_k` 0 and `top_p` 1 leave nothing out.

    `repetition_penalty` (Keskar et al. 2019, CTRL) divides a logit above 0, and multiplies one below, for every token
    that the completion holds already; 1 changes nothing. The prompt's tokens are spared: a description must be free to
    say the words of its title.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    @classmethod
    def of(cls, text: TextSettings) -> "Sampling":
        """What the settings say."""
        return cls(text.temperature, text.top_k, text.top_p, text.repetition_penalty, text.seed)

    def again(self) -> "Sampling":
        """For further attempts: where the likeliest token is taken, which would give the same text, some are drawn."""
        return self if self.draws else replace(self, temperature=_TEMPERATURE_AGAIN, top_p=_TOP_P_AGAIN)

    @property
    def draws(self) -> bool:
        """Whether chance has a part in it."""
        return self.temperature > 0

    @property
    def penalises(self) -> bool:
        """Whether it must be known what a completion holds already."""
        return self.repetition_penalty != 1

    def noise_of(self, key: bytes, attempt: int) -> int:
        """The 63-bit number that a row's noise starts from."""
        content = b"%d %d " % (self.seed, attempt) + key
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1


GREEDY = Sampling()
"""The likeliest token, always."""


def choose(
    logits: torch.Tensor, sampling: Sampling, said: torch.Tensor | None, noise: torch.Tensor, steps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The next token of each row, and whether its logits were finite; (rows,) each.

    `logits` are (rows, vocabulary); `said` marks the tokens that a completion holds, of the same shape, or is None;
    `noise` are the numbers of `noise_of` and `steps` the tokens generated before, (rows,). Of the likeliest the first.
    """
    if said is not None:
        logits = penalised(logits.float(), said, sampling.repetition_penalty)
    if sampling.draws:
        logits = drawn(logits.float(), sampling, noise, steps)
    # A maximum is NaN if anything is.
    likeliest, tokens = logits.max(dim=-1)
    return tokens, torch.isfinite(likeliest)


def penalised(logits: torch.Tensor, said: torch.Tensor, penalty: float) -> torch.Tensor:
    """The logits with those of the tokens `said` made smaller."""
    return torch.where(said, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def drawn(logits: torch.Tensor, sampling: Sampling, noise: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Scores, (rows, vocabulary), whose largest is the token drawn; temperature, top-k and top-p in that order."""
    scores = logits / sampling.temperature
    if 0 < sampling.top_k < scores.shape[-1]:
        scores = _without(scores, scores < scores.topk(sampling.top_k).values[:, -1:])
    if sampling.top_p < 1:
        scores = _without(scores, _beyond_top_p(scores, sampling.top_p))
    return scores + _gumbel(noise, steps, scores.shape[-1])


def _without(scores: torch.Tensor, left_out: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(left_out, float("-inf"))


def _beyond_top_p(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """The tokens that the likeliest, which together weigh `top_p`, can do without (Holtzman et al. 2020)."""
    ordered, order = scores.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    heavier = ordered.cumsum(dim=-1) - ordered
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, heavier >= top_p)


def _gumbel(noise: torch.Tensor, steps: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Noise of the standard Gumbel distribution, (rows, vocabulary)."""
    rows = _splitmix(noise + steps * _GOLDEN)
    tokens = torch.arange(1, vocabulary + 1, device=noise.device) * _GOLDEN
    bits = _splitmix(rows[:, None] + tokens) & ((1 << _NOISE_BITS) - 1)
    if bits.device.type == "mps":
        # An Apple GPU knows no double.
        bits = bits.cpu()
    uniform = (bits.double() + 0.5) / (1 << _NOISE_BITS)
    return -torch.log(-torch.log(uniform)).float().to(noise.device)


def _splitmix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shifted(x, 30)) * _MIX[0]
    x = (x ^ _shifted(x, 27)) * _MIX[1]
    return x ^ _shifted(x, 31)


def _shifted(x: torch.Tensor, by: int) -> torch.Tensor:
    # To the right without the sign.
    return (x >> by) & ((1 << (64 - by)) - 1)
