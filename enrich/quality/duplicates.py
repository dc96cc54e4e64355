"""Texts that occur twice: exactly, by 128-bit digests, and nearly, by MinHash and locality-sensitive hashing.

Datasketch does the same with a Python call for each text and its tables in Python objects; numpy takes a batch at once.
At 1.4 million rows, 30 % of them near-duplicates, the search holds 160 MB (16 bytes a row for digests, some 100 for
pairs and sorting); the signatures, 314 MB, lie in a file that is mapped, not held.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

Digests = npt.NDArray[np.uint64]
Signatures = npt.NDArray[np.uint16]
Indices = npt.NDArray[np.int64]

NUM_HASHES = 112
_SHINGLE_BYTES = 5
# 32 bits a shingle, hashed 112 times, stay in the cache of a core.
_CHUNK_BYTES = 1 << 15
_COEFFICIENTS = np.random.default_rng(0).integers(0, 1 << 32, (NUM_HASHES, 2), np.uint32) | np.array([1, 0], np.uint32)
# Of the pairs that are as similar as the threshold, the share that the search must find.
_MIN_RECALL = 0.95
_CHUNK_PAIRS = 1 << 16


def digests(texts: Sequence[str]) -> Digests:
    """128 bits (XXH3) of each text: shape (texts, 2)."""
    joined = b"".join(xxhash.xxh3_128_digest(text.encode()) for text in texts)
    return np.frombuffer(joined, "<u8").reshape(-1, 2)


def leaders(digests: Digests) -> Indices:
    """For each row the first one with the same digest, itself if there is none before: shape (rows,)."""
    order = np.lexsort((digests[:, 0], digests[:, 1]))
    sorted_digests = digests[order]
    starts = np.ones(len(order), np.bool_)
    starts[1:] = np.any(sorted_digests[1:] != sorted_digests[:-1], axis=1)
    first = np.empty(len(order), np.int64)
    # The sort is stable, so that the first of a run is the earliest row.
    first[order] = order[starts][np.cumsum(starts) - 1]
    return first


def signatures(texts: Sequence[str]) -> Signatures:
    """The MinHash signature of each text over its 5-byte shingles: shape (texts, 112).

    The share of equal entries estimates the Jaccard similarity of two texts' shingles with a standard error of
    at most 0.05 (Broder 1997). The hashes are linear permutations of a mixed 32-bit hash (Broder, Charikar, Frieze and
    Mitzenmacher 1998), of whose minima 16 bits are kept (Li and König 2010).
    """
    result = np.empty((len(texts), NUM_HASHES), np.uint16)
    encoded = [text.encode() for text in texts]
    start = 0
    while start < len(encoded):
        stop, size = start + 1, len(encoded[start])
        while stop < len(encoded) and size < _CHUNK_BYTES:
            size += len(encoded[stop])
            stop += 1
        result[start:stop] = _signatures(encoded[start:stop])
        start = stop
    return result


def _signatures(texts: Sequence[bytes]) -> Signatures:
    hashes, starts = _shingles(texts)
    minima = np.empty((NUM_HASHES, len(texts)), np.uint32)
    for row, (factor, summand) in zip(minima, _COEFFICIENTS, strict=True):
        np.minimum.reduceat(hashes * factor + summand, starts, out=row)
    return (minima ^ (minima >> np.uint32(16))).astype(np.uint16).T


def _shingles(texts: Sequence[bytes]) -> tuple[npt.NDArray[np.uint32], Indices]:
    """32-bit hashes of the shingles of all texts, and where those of each text start.

    One shingle for each byte: the last four of a text run into zeros behind it.
    """
    padding = b"\0" * (_SHINGLE_BYTES - 1)
    bytes_ = np.frombuffer(padding.join([text or b"\0" for text in texts]) + padding, np.uint8).astype(np.uint64)
    lengths = np.array([max(1, len(text)) for text in texts])
    num_windows = len(bytes_) - len(padding)
    windows = np.zeros(num_windows, np.uint64)
    for offset in range(_SHINGLE_BYTES):
        windows |= bytes_[offset : offset + num_windows] << np.uint64(8 * offset)
    ends = np.cumsum(lengths)
    first_bytes = ends - lengths + len(padding) * np.arange(len(texts))
    inside = np.zeros(num_windows + 1, np.int8)
    inside[first_bytes] += 1
    inside[first_bytes + lengths] -= 1
    return _mixed(windows[np.cumsum(inside[:-1]) > 0]), ends - lengths


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014), its upper half."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((values ^ (values >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)


def near_leaders(file: Path, rows: Indices, similarity: float) -> dict[int, int]:
    """Of `rows` (ascending) those nearly the same as an earlier one that stays: row → that row.

    `file` holds the signatures of all rows, as `signatures` made them, one after the other. Two texts that are as
    similar as `similarity` are found with a probability of 0.95, more similar ones with a higher one (banding:
    Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4).
    """
    if len(rows) < 2:
        return {}
    stored = np.memmap(file, np.uint16, "r").reshape(-1, NUM_HASHES)
    min_equal = round(similarity * NUM_HASHES)
    leader: dict[int, int] = {}
    for later, earlier in _pairs(stored, rows, rows_per_band(similarity), min_equal):
        if later in leader:
            continue
        # The earlier one may have been dropped for a third: only likeness to a row that stays counts.
        stays = leader.get(earlier, earlier)
        if stays == earlier or np.count_nonzero(stored[later] == stored[stays]) >= min_equal:
            leader[later] = stays
    return leader


def rows_per_band(similarity: float) -> int:
    """As many equal entries in a row as still find 0.95 of the pairs of that similarity; fewer find more by chance."""
    recalls = {size: 1 - (1 - similarity**size) ** (NUM_HASHES // size) for size in range(1, NUM_HASHES + 1)}
    return max(size for size, recall in recalls.items() if recall >= _MIN_RECALL)


def _pairs(stored: Signatures, rows: Indices, band_rows: int, min_equal: int) -> Iterator[tuple[int, int]]:
    """The pairs (later, earlier) that are equal in some band and similar in all, in order."""
    # One number a pair, and each pair once: most are found in several bands.
    known = np.empty(0, np.int64)
    for start in range(0, NUM_HASHES - band_rows + 1, band_rows):
        similar = _similar(stored, _equal_in(stored[:, start : start + band_rows], rows), min_equal)
        known = np.union1d(known, similar[:, 0] * len(stored) + similar[:, 1])
    for number in known.tolist():
        yield divmod(number, len(stored))


def _equal_in(band: Signatures, rows: Indices) -> Indices:
    """The pairs (later, earlier) of rows that are equal in a band: each with the one before it and with the first."""
    keys = np.zeros(len(rows), np.uint64)
    for column in band.T:
        keys = (keys ^ column[rows]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.ones(len(rows), np.bool_)
    starts[1:] = keys[1:] != keys[:-1]
    first = rows[order[starts]][np.cumsum(starts) - 1]
    later = np.flatnonzero(~starts)
    before, row = rows[order[later - 1]], rows[order[later]]
    with_before, with_first = np.stack([row, before], axis=1), np.stack([row, first[later]], axis=1)
    return np.concatenate([with_before, with_first[before != first[later]]])


def _similar(stored: Signatures, pairs: Indices, min_equal: int) -> Indices:
    """The pairs of which enough entries are equal."""
    chunks = [pairs[start : start + _CHUNK_PAIRS] for start in range(0, len(pairs), _CHUNK_PAIRS)]
    kept = [
        chunk[np.count_nonzero(stored[chunk[:, 0]] == stored[chunk[:, 1]], axis=1) >= min_equal] for chunk in chunks
    ]
    return np.concatenate(kept) if kept else pairs
