import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from enrich.engine.sampling import GREEDY, Sampling, choose, drawn, penalised

WORDS = 12
DRAWS = 20_000
NAN, INF = float("nan"), float("inf")


def logits_of(rows: int, seed: int = 0, words: int = WORDS) -> torch.Tensor:
    return torch.randn(rows, words, generator=torch.Generator().manual_seed(seed)) * 2


def noise_for(count: int, sampling: Sampling = GREEDY, attempt: int = 0) -> torch.Tensor:
    return torch.tensor([sampling.noise_of(key.to_bytes(16, "big"), attempt) for key in range(count)])


def tokens(logits: torch.Tensor, sampling: Sampling, noise: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    found, finite = choose(logits, sampling, None, noise, steps)
    assert finite.all()
    return found


def drawn_often(row: torch.Tensor, sampling: Sampling, *, keys: int) -> torch.Tensor:
    """The tokens of that many keys, at as many steps each as make `DRAWS`."""
    noise = noise_for(keys, sampling).repeat_interleave(DRAWS // keys)
    steps = torch.arange(DRAWS // keys).repeat(keys)
    return tokens(row.expand(DRAWS, -1), sampling, noise, steps)


def chi_square(found: torch.Tensor, expected: torch.Tensor) -> float:
    counts = torch.bincount(found, minlength=len(expected)).double()
    weights = expected.double() * len(found)
    return float(((counts - weights) ** 2 / weights).sum())


# Of chi-square with 11 degrees of freedom, 1 in 10 000 lies beyond.
BEYOND = 37.4


# Greedy


def test_greedy_takes_the_likeliest() -> None:
    logits = logits_of(50)
    zeros = torch.zeros(50, dtype=torch.long)
    assert torch.equal(tokens(logits, GREEDY, zeros, zeros), logits.argmax(dim=-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_of_the_likeliest_the_first_is_taken(dtype: torch.dtype) -> None:
    logits = torch.zeros(3, 1000, dtype=dtype)
    logits[0, [7, 400, 999]] = logits[1, [998, 999]] = 2.5
    zeros = torch.zeros(3, dtype=torch.long)
    assert tokens(logits, GREEDY, zeros, zeros).tolist() == [7, 998, 0]


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        Sampling(repetition_penalty=1.3),
        Sampling(temperature=1.0),
        Sampling(temperature=0.7, top_k=3, top_p=0.8, repetition_penalty=1.3),
    ],
    ids=["greedy", "penalised", "drawn", "all"],
)
def test_numbers_out_of_range_are_told_of_their_rows(sampling: Sampling) -> None:
    clean = logits_of(6)
    spoilt = clean.clone()
    spoilt[1, 3], spoilt[2, 0], spoilt[3, 5], spoilt[4] = NAN, INF, -INF, -INF
    noise, steps = noise_for(6), torch.arange(6)
    said = torch.zeros(6, WORDS, dtype=torch.bool) if sampling.penalises else None
    found, finite = choose(spoilt, sampling, said, noise, steps)
    assert finite.tolist() == [True, False, False, True, False, True]
    unspoilt, all_finite = choose(clean, sampling, said, noise, steps)
    assert all_finite.all()
    assert found[[0, 5]].tolist() == unspoilt[[0, 5]].tolist()
    assert found[3] != 5


# Chance


@pytest.mark.parametrize("keys", [DRAWS, 100, 1])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_tokens_are_drawn_as_often_as_their_weight(temperature: float, keys: int) -> None:
    row = torch.linspace(-1, 1, WORDS)
    found = drawn_often(row, Sampling(temperature=temperature), keys=keys)
    assert chi_square(found, (row / temperature).softmax(dim=-1)) < BEYOND
    assert chi_square(found, (row / temperature * 1.2).softmax(dim=-1)) > BEYOND


def test_what_top_k_and_top_p_leave_is_drawn_as_often_as_its_weight() -> None:
    row = torch.arange(WORDS).float() / 4
    found = drawn_often(row, Sampling(temperature=1.0, top_k=9, top_p=0.7), keys=DRAWS)
    left = TopPLogitsWarper(0.7)(None, TopKLogitsWarper(9)(None, row[None]))[0]
    kept = torch.isfinite(left)
    assert 2 < int(kept.sum()) < 9
    assert kept[found].all()
    assert chi_square(found - int(kept.int().argmax()), left[kept].softmax(dim=-1)) < BEYOND


def test_one_row_s_draws_do_not_tell_another_s() -> None:
    row = torch.zeros(2)
    sampling = Sampling(temperature=1.0)
    noise, steps = noise_for(100), torch.arange(100)
    grid = torch.stack([tokens(row.expand(100, -1), sampling, noise, steps.new_full((100,), at)) for at in steps])
    signs = grid.double() * 2 - 1
    for shifted in (signs.roll(1, 0), signs.roll(1, 1), signs.roll((1, 1), (0, 1))):
        assert abs(float((signs * shifted).mean())) < 0.04


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([0.3, 1.0, 2.0]))
def test_top_k_leaves_out_what_transformers_does(seed: int, k: int, temperature: float) -> None:
    scores = logits_of(3, seed, words=32)
    expected = TopKLogitsWarper(k)(None, scores / temperature)
    _holds_out_the_same(scores, Sampling(temperature=temperature, top_k=k), expected)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0.01, 0.999), st.sampled_from([0.3, 1.0, 2.0]))
def test_top_p_leaves_out_what_transformers_does(seed: int, p: float, temperature: float) -> None:
    scores = logits_of(3, seed, words=32)
    expected = TopPLogitsWarper(p)(None, scores / temperature)
    _holds_out_the_same(scores, Sampling(temperature=temperature, top_p=p), expected)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.floats(0.01, 0.999))
def test_top_p_weighs_what_top_k_leaves(seed: int, k: int, p: float) -> None:
    scores = logits_of(3, seed, words=32)
    expected = TopPLogitsWarper(p)(None, TopKLogitsWarper(k)(None, scores))
    _holds_out_the_same(scores, Sampling(temperature=1.0, top_k=k, top_p=p), expected)


def _holds_out_the_same(logits: torch.Tensor, sampling: Sampling, expected: torch.Tensor) -> None:
    scores = drawn(logits, sampling, noise_for(len(logits)), torch.arange(len(logits)))
    assert torch.equal(torch.isneginf(scores), torch.isneginf(expected))


def test_top_p_never_leaves_out_the_likeliest() -> None:
    logits = logits_of(200)
    sampling = Sampling(temperature=1.0, top_p=1e-6)
    assert torch.equal(tokens(logits, sampling, noise_for(200), torch.arange(200)), logits.argmax(dim=-1))


# Noise


def test_a_row_s_draw_does_not_depend_on_its_place_or_neighbours() -> None:
    sampling = Sampling(temperature=1.0, top_k=8, top_p=0.95, repetition_penalty=1.2)
    logits, noise, steps = logits_of(64, words=96), noise_for(64), torch.arange(64) % 7
    said = torch.rand(64, 96, generator=torch.Generator().manual_seed(1)) < 0.3
    together, _ = choose(logits, sampling, said, noise, steps)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    shuffled, _ = choose(logits[order], sampling, said[order], noise[order], steps[order])
    assert torch.equal(shuffled, together[order])
    for row in range(64):
        one = slice(row, row + 1)
        assert torch.equal(choose(logits[one], sampling, said[one], noise[one], steps[one])[0], together[one])


def test_another_key_attempt_seed_or_step_draws_other_noise() -> None:
    flat = torch.zeros(1, 1000)

    def draw(key: bytes = b"a", attempt: int = 0, seed: int = 0, step: int = 0) -> int:
        sampling = Sampling(temperature=1.0, seed=seed)
        return int(tokens(flat, sampling, torch.tensor([sampling.noise_of(key, attempt)]), torch.tensor([step])))

    different = [draw(key=bytes([at])) for at in range(20)]
    different += [draw(attempt=at) for at in range(1, 20)]
    different += [draw(seed=at) for at in range(1, 20)]
    different += [draw(step=at) for at in range(1, 20)]
    assert len(set(different)) > len(different) * 0.9
    assert draw() == draw()


@settings(deadline=None)
@given(st.binary(max_size=32), st.integers(0, 1000), st.integers(0, 2**63))
def test_noise_is_a_number_that_fits(key: bytes, attempt: int, seed: int) -> None:
    noise = Sampling(seed=seed).noise_of(key, attempt)
    assert 0 <= noise < 2**63
    assert noise == Sampling(temperature=0.5, seed=seed).noise_of(key, attempt)


def test_noise_tells_seed_attempt_and_key_apart() -> None:
    triples = [(seed, attempt, key) for seed in (1, 11) for attempt in (1, 11) for key in (b"", b"1", b"1 ", b"\x001")]
    assert len({Sampling(seed=seed).noise_of(key, attempt) for seed, attempt, key in triples}) == len(triples)


# The penalty


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.7, 1.0, 1.3, 2.0]))
def test_a_penalty_is_that_of_transformers(seed: int, penalty: float) -> None:
    logits = logits_of(4, seed)
    said = torch.randint(WORDS, (4, 5), generator=torch.Generator().manual_seed(seed))
    expected = RepetitionPenaltyLogitsProcessor(penalty)(said, logits.clone())
    marked = torch.zeros(4, WORDS, dtype=torch.bool).scatter(1, said, True)
    assert torch.equal(penalised(logits, marked, penalty), expected)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_was_said_is_chosen_less(temperature: float) -> None:
    logits = torch.tensor([[3.0, 2.0, -1.0, 1.0]]).expand(1000, -1)
    said = torch.tensor([[True, False, False, False]]).expand(1000, -1)
    noise, steps = noise_for(1000), torch.zeros(1000, dtype=torch.long)

    def share(penalty: float) -> float:
        sampling = Sampling(temperature=temperature, repetition_penalty=penalty)
        found, _ = choose(logits, sampling, said, noise, steps)
        return float((found == 0).double().mean())

    assert share(1.0) > share(2.0) + 0.25
