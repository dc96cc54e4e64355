"""Duplicates: the estimate against the true similarity, the search against every pair, and who stays."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from enrich.quality.duplicates import NUM_HASHES, digests, leaders, near_leaders, rows_per_band, signatures


def shingles(text: str) -> set[bytes]:
    padded = text.encode() + b"\0\0\0\0"
    return {padded[at : at + 5] for at in range(len(text.encode()))}


def jaccard(one: str, other: str) -> float:
    return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))


def prose(dice: random.Random, num_words: int = 60) -> list[str]:
    return ["".join(dice.choices("abcdefghijklmnop", k=dice.randint(3, 9))) for _ in range(num_words)]


def varied(dice: random.Random, words: list[str], num_changes: int) -> list[str]:
    changed = list(words)
    for at in dice.sample(range(len(words)), num_changes):
        changed[at] = prose(dice, 1)[0]
    return changed


def near(tmp_path: Path, texts: list[str], similarity: float = 0.8) -> dict[int, int]:
    file = tmp_path / "signatures"
    file.write_bytes(signatures(texts).tobytes())
    return near_leaders(file, np.arange(len(texts)), similarity)


def test_equal_entries_estimate_the_jaccard_similarity() -> None:
    dice = random.Random(1)
    errors = []
    for num_changes in range(0, 60, 2):
        words = prose(dice)
        pair = [" ".join(words), " ".join(varied(dice, words, num_changes))]
        one, other = signatures(pair)
        errors.append(np.count_nonzero(one == other) / NUM_HASHES - jaccard(*pair))
    assert max(map(abs, errors)) < 0.2
    # Standard error at most 0.05 a pair; a bias would show in the mean of 30.
    assert abs(sum(errors) / len(errors)) < 0.03


def test_a_signature_does_not_depend_on_the_texts_beside_it() -> None:
    texts = ["", "a", "é", "abcd", "abcde", "x" * 70_000, *(" ".join(prose(random.Random(seed))) for seed in range(40))]
    together = signatures(texts)
    alone = np.concatenate([signatures([text]) for text in texts])
    assert np.array_equal(together, alone)
    assert len(np.unique(together, axis=0)) == len(texts)


def test_near_duplicates_are_found_and_others_are_not(tmp_path: Path) -> None:
    dice = random.Random(2)
    originals = [prose(dice) for _ in range(150)]
    copies = [varied(dice, words, 2) for words in originals]
    found = near(tmp_path, [" ".join(words) for words in originals + copies])
    # Two changed words of 60 leave about 0.9: with a recall of 0.95 at 0.8, hardly one is missed.
    assert sum(found.get(150 + index) == index for index in range(150)) >= 147
    assert all(later == earlier + 150 for later, earlier in found.items())


def test_whoever_is_dropped_is_near_a_row_that_stays(tmp_path: Path) -> None:
    dice = random.Random(3)
    chain = [prose(dice)]
    for _ in range(25):
        chain.append(varied(dice, chain[-1], 3))
    texts = [" ".join(words) for words in chain]
    found = near(tmp_path, texts)
    assert jaccard(texts[0], texts[-1]) < 0.3
    assert found
    assert all(
        earlier not in found and jaccard(texts[later], texts[earlier]) > 0.65 for later, earlier in found.items()
    )
    assert len(texts) - len(found) >= 4


def test_the_bands_find_pairs_at_the_threshold() -> None:
    sizes = [rows_per_band(similarity) for similarity in (0.5, 0.8, 0.9, 1.0)]
    assert sizes == sorted(sizes)
    assert all(
        1 - (1 - similarity**size) ** (NUM_HASHES // size) >= 0.95
        for similarity, size in zip((0.5, 0.8, 0.9, 1.0), sizes, strict=True)
    )


def test_exact_duplicates_follow_the_first() -> None:
    texts = ["b", "a", "b", "c", "a", "b"]
    assert leaders(digests(texts)).tolist() == [0, 1, 0, 3, 1, 0]
    assert leaders(digests([])).tolist() == []


def test_nothing_is_near_when_there_is_one_row(tmp_path: Path) -> None:
    assert near(tmp_path, ["only this"]) == {}
    assert near(tmp_path, ["the very same words"] * 3) == {1: 0, 2: 0}


@pytest.mark.parametrize("pair", list(itertools.combinations(["short", "sharp", "shore"], 2)))
def test_short_texts_are_told_apart(tmp_path: Path, pair: tuple[str, str]) -> None:
    assert near(tmp_path, list(pair)) == {}
