"""What a power cut needs and no kill can show: the order in which things are made durable (ALICE)."""

import pytest

from tests.faults.places import Place
from tests.faults.strace import RENAMES, SYNCS, WRITES, Call

Undisturbed = dict[Place, Call]

# What becomes durable under a final name, and the folder it lies in.
PUBLISHED = [
    ("/.enrich/.memory.sqlite.tmp", "/.enrich"),
    ("/.catalogue.enriched.parquet.quarantine.jsonl.tmp", ""),
    ("/.catalogue.enriched.parquet.tmp", ""),
    ("/.enrich/reports/*/.summary.json.tmp", "/.enrich/reports/*"),
]


@pytest.mark.parametrize(("temp", "folder"), PUBLISHED)
def test_written_then_synced_then_named_then_its_folder_synced(
    undisturbed: Undisturbed, temp: str, folder: str
) -> None:
    made = list(undisturbed)
    writes = [at for at, place in enumerate(made) if place.file == temp and place.call in WRITES]
    syncs = [at for at, place in enumerate(made) if place.file == temp and place.call in SYNCS]
    (rename,) = [at for at, place in enumerate(made) if place.file == temp and place.call in RENAMES]
    folder_syncs = [at for at, place in enumerate(made) if place.file == folder and place.call == "fsync"]
    assert max(writes) < max(syncs) < rename < min(at for at in folder_syncs if at > rename)
    others = [at for at, place in enumerate(made) if place.call in RENAMES and at > rename]
    # Its folder is synced before anything else gets its name.
    assert min(at for at in folder_syncs if at > rename) < min(others, default=len(made))


def test_a_batch_is_synced_before_the_output_is_begun(undisturbed: Undisturbed) -> None:
    """Nothing is published that the memory might forget."""
    made = list(undisturbed)
    log = "/.enrich/memory.sqlite-wal"
    begun = next(at for at, place in enumerate(made) if place.file == "/.catalogue.enriched.parquet.tmp" and at)
    writes = [at for at, place in enumerate(made) if place.file == log and place.call in WRITES and at < begun]
    syncs = [at for at, place in enumerate(made) if place.file == log and place.call in SYNCS and at < begun]
    assert writes
    assert max(writes) < max(syncs)
