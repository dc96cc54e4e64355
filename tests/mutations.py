"""Does the suite notice? Removes one safeguard after another, each in a copy of the repository, and runs tests.

`make test-mutations` prints each with the test that noticed, and `N of N noticed`; it fails unless all are. The same
tests are run once over an untouched copy, where they must pass.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutation:
    """A safeguard taken out of `file` by replacing `old`, which stands there once; in `test` something must fail."""

    name: str
    file: str
    old: str
    new: str
    test: str

    def apply(self, folder: Path) -> None:
        path = folder / self.file
        content = path.read_text(encoding="utf-8")
        found = content.count(self.old)
        if found != 1:
            raise SystemExit(f"{self.name}: what it replaces stands {found} times in {self.file}; mend the mutation")
        path.write_text(content.replace(self.old, self.new), encoding="utf-8")


_PUBLISHING, _NIGHTS, _INPUTS = "tests/test_publish.py", "tests/test_night.py", "tests/test_bad_input.py"
_KEYS, _LOCKS, _REMEMBERING = "tests/test_recipe.py", "tests/test_state.py", "tests/test_memory.py"


def _mutations() -> Iterator[Mutation]:
    durable = partial(_of, "enrich/durable.py", _PUBLISHING)
    synced, named = "        _fsync(temp, os.O_RDONLY)\n", "        temp.replace(final)\n"
    folder_synced = "        _fsync(final.parent, os.O_RDONLY | os.O_DIRECTORY)\n"
    yield durable("file not synced", synced, "")
    yield durable("folder not synced", named + folder_synced, named)
    yield durable("named before it is synced", synced + named, named + synced.replace("temp", "final"))

    publish = partial(_of, "enrich/catalog/publish.py", _PUBLISHING)
    yield publish("written under the final name", "temp = durable.temporary(output)", "temp = output")
    yield publish("rows not read back", "prove_written(temp, digests, catalogue.batch_rows, check_stop)", "pass")
    yield publish("bytes not read back", "if digest(temp) != written:", "if False:")
    yield publish("short file left behind", "    finally:\n        # An", "    else:\n        # An")
    yield publish("input not read again", "catalogue.check_unchanged()", "pass")
    yield _of(
        "enrich/catalog/publish.py", _NIGHTS, "quarantine dropped", "_publish_quarantine(catalogue, output)", "pass"
    )

    read = partial(_of, "enrich/catalog/read.py", _INPUTS)
    added_up = "if sum(group.num_rows for group in groups) != metadata.num_rows:"
    yield read("rows not counted", "if start != self.num_rows:", "if False:")
    yield read("row groups not added up", added_up, "if False:")
    yield read("declared size not looked at", "if declared > max(", "if False and declared > max(")
    yield read("checksums of pages not verified", "page_checksum_verification=True", "page_checksum_verification=False")

    state = partial(_of, "enrich/state.py", _LOCKS)
    yield state("no lock", "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass")
    yield state("a deleted lock taken for one", "if _is_at(self.lock, descriptor):", "if True:")
    yield state("lock inherited by children", "os.register_at_fork(after_in_child=_let_go_in_child)\n", "")
    yield _of(
        "enrich/night.py", "tests/faults/test_together.py", "lock not looked at again", "self.check_lock()", "pass"
    )

    key = partial(_of, "enrich/recipe.py")
    parts, said = "self.template_id, self.base_digest, self.adapter_digest, self.text", "(product.title, *pairs)"
    yield key(_KEYS, "key without the template", parts, parts.replace("self.template_id, ", ""))
    yield key(_NIGHTS, "key without the base", parts, parts.replace("self.base_digest, ", ""))
    yield key(_NIGHTS, "key without the adapter", parts, parts.replace("self.adapter_digest, ", ""))
    yield key(_NIGHTS, "key without the text settings", ', self.text.model_dump(mode="json")]', "]")
    yield key(_NIGHTS, "key without the title", said, "pairs")
    yield key(_NIGHTS, "key without the attributes", said, "(product.title,)")
    yield key(_KEYS, "key without the lengths of its parts", 'len(content).to_bytes(8, "big") + content', "content")

    memory = partial(_of, "enrich/memory.py", _REMEMBERING)
    yield memory("rows of the memory not checked", "if digest_of(*row) != digest:", "if False:")
    yield _of("enrich/memory_file.py", _REMEMBERING, "memory not synced", "synchronous = FULL", "synchronous = OFF")
    asserted = "None if self._control_ids.intersection(each.ids)"
    yield _of("enrich/prompt.py", "tests/test_prompt.py", "control tokens let through", asserted, "None if False")
    too_many = "if summary.rejected_for_input > allowed:"
    yield _of("enrich/night.py", _NIGHTS, "any number of bad rows published", too_many, "if False:")
    page = "tests/report/test_page.py"
    yield _of("enrich/report/page.py", page, "page not escaped", "autoescape=True", "autoescape=False")


def _of(file: str, test: str, name: str, old: str, new: str) -> Mutation:
    return Mutation(name, file, old, new, test)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="part of a mutation's name")
    options = parser.parse_args()
    chosen = [each for each in _mutations() if not options.only or options.only in each.name]
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(os.cpu_count()) as threads:
        whole = _copy(Path(place) / "whole")
        every = sorted({each.test for each in chosen})
        if failed := _failing(whole, every):
            raise SystemExit(f"fails without any mutation: {failed}")
        noticed = 0
        for mutation, failed in zip(chosen, threads.map(lambda each: _mutated(each, whole), chosen), strict=True):
            noticed += failed is not None
            print(f"{mutation.name:<40} {failed or 'NOBODY NOTICED'}", flush=True)
    print(f"{noticed} of {len(chosen)} noticed")
    return 0 if noticed == len(chosen) else 1


def _mutated(mutation: Mutation, whole: Path) -> str | None:
    folder = whole.with_name(re.sub(r"\W+", "-", mutation.name))
    shutil.copytree(whole, folder, symlinks=True)
    mutation.apply(folder)
    failed = _failing(folder, [mutation.test])
    shutil.rmtree(folder)
    return failed


def _copy(folder: Path) -> Path:
    """The files of the repository as they are now, with what git does not know of yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "models").symlink_to(ROOT / "models")
    return folder


def _failing(folder: Path, tests: Sequence[str]) -> str | None:
    """The first test that fails there, or None."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return None
    # An ERROR is a test that could not even begin: that notices nothing.
    found = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if found is None:
        raise SystemExit(f"the tests could not be run: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    return found[1]


if __name__ == "__main__":
    sys.exit(main())
