"""`make bench-quality`: texts that are judged a second, by one core and by all, on the labelled pairs.

Prints one JSON line a figure. Half of the pairs have a claim that their row does not support.
"""

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from statistics import median

from enrich.crew import Crew, num_cores
from enrich.prompt import Template
from enrich.quality.judge import Judge
from enrich.settings import DEFAULT_TEMPLATE, QualitySettings
from tests.quality.labelled import Labelled, labelled

_BATCH = 512
_ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=20_000)
    options = parser.parse_args()
    pairs = list(labelled())
    texts = [pairs[at % len(pairs)] for at in range(options.texts)]
    batches = [texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH)]
    judge = Judge(QualitySettings(), Template.parse(DEFAULT_TEMPLATE).instruction)
    for cores in sorted({1, num_cores()}):
        with Crew(cores) as crew:
            rates = [_rate(crew, judge, batches) for _ in range(_ROUNDS + 1)]
        # The first round starts the processes.
        print(json.dumps({"figure": "judge", "cores": cores, "texts_per_s": [round(each) for each in rates[1:]]}))
        print(json.dumps({"figure": "judge, median", "cores": cores, "texts_per_s": round(median(rates[1:]))}))


def _rate(crew: Crew, judge: Judge, batches: Sequence[Sequence[Labelled]]) -> float:
    started = time.perf_counter()
    count = sum(len(each) for each in crew.in_order(partial(_judged, judge), batches))
    return count / (time.perf_counter() - started)


def _judged(judge: Judge, batch: Sequence[Labelled]) -> list[str]:
    return [judge.judge(each.text, "eos", each.product).action for each in batch]


if __name__ == "__main__":
    # By its name: other processes cannot find a function of `__main__`.
    from tests.bench import quality

    quality.main()
