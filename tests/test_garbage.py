"""The collector is asked more seldom while a run lasts, and as often as before after it."""

import gc
from contextlib import suppress

from enrich.garbage import never_sought, seldom_sought


def test_the_collector_is_as_it_was_after_the_block() -> None:
    before = gc.get_threshold()
    with suppress(KeyError), seldom_sought():
        during = gc.get_threshold()
        raise KeyError
    assert during[0] > 10 * before[0]
    assert gc.get_threshold() == before


def test_it_rests_while_json_is_parsed_and_goes_on_after_it() -> None:
    with suppress(KeyError), never_sought():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
