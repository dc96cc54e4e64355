"""On the path of a run and of its Ray workers: the echo engine takes its time, notes whom it wrote, and dies of poison.

Told by the environment: ECHO_PAUSE, seconds a text; ECHO_NOTES, a folder; ECHO_POISON, what kills the process.
"""

import os
import sys
import time

if "ECHO_PAUSE" in os.environ:
    from enrich.engine.protocol import EchoGenerator

    _generate = EchoGenerator.generate
    _notes = os.path.join(os.environ["ECHO_NOTES"], str(os.getpid()))  # noqa: PTH118
    _poison = os.environ.get("ECHO_POISON", "\0").encode()

    def _besieged(self, requests):  # type: ignore[no-untyped-def]
        for completion in _generate(self, requests):
            if _poison in bytes(each for each in completion.ids if each < 256):
                os._exit(1)
            time.sleep(float(os.environ["ECHO_PAUSE"]))
            with open(_notes, "a") as notes:  # noqa: PTH123
                notes.write(completion.key.hex() + "\n")
            yield completion

    EchoGenerator.generate = _besieged
    EchoGenerator.batch_rows = 64
    sys.dont_write_bytecode = True
