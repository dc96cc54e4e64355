"""What cron and systemd start, what installs it, and the runbook: as they run it, in an empty environment."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from enrich import errors
from enrich.cli import build_parser
from tests.runs import ROOT, column, rows_of, snapshot, texts_in, write_catalogue

JOBS = ROOT / "jobs"
RUNBOOK = (JOBS / "README.md").read_text(encoding="utf-8")
SCRIPTS = ["nightly.sh", "install.sh"]
STATUSES = {each.status for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)}
# 70 is what the tree's root would end with; nothing raises it.
STATUSES = STATUSES - {70} | {errors.PUBLISHED, errors.PUBLISHED_WITH_PENDING}

STUB = """#!/bin/sh
printf '%s\\n' "$@" > "$SEEN/arguments"
env > "$SEEN/environment"
pwd > "$SEEN/folder"
exit "${STUB_STATUS:-0}"
"""

# The command itself, its echo engine slowed down as the tests of the lock do it.
COMMAND = """#!{python}
import sys
sys.path.insert(0, {root!r})
from enrich.cli import main
from tests.killing import _configure_echo
if __name__ == "__main__":
    _configure_echo(8, {pause})
    sys.exit(main())
"""


class Place:
    """A checkout with the jobs and a command in it, a catalogue of which half is missing, and settings."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        (self.checkout / ".venv" / "bin").mkdir(parents=True)
        (self.checkout / "jobs").mkdir()
        for name in ("nightly.sh", "nightly.env"):
            shutil.copy(JOBS / name, self.checkout / "jobs")
        self.catalogue = write_catalogue(folder / "catalogue.parquet", rows_of(160))
        self.output = folder / "out.parquet"
        self.state = folder / "state"
        self.log = folder / "nightly.log"
        self.settings = folder / "nightly.env"
        self.set(INPUT=self.catalogue, OUTPUT=self.output, STATE=self.state, EXTRA="--engine echo")
        self.command(COMMAND.format(python=sys.executable, root=str(ROOT), pause=0.0))

    def command(self, text: str) -> None:
        program = self.checkout / ".venv" / "bin" / "enrich"
        program.write_text(text)
        program.chmod(0o755)

    def slow(self, pause: float) -> None:
        self.command(COMMAND.format(python=sys.executable, root=str(ROOT), pause=pause))

    def set(self, **values: object) -> None:
        self.settings.write_text("".join(f"{name}={value}\n" for name, value in values.items()))

    def add(self, text: str) -> None:
        self.settings.write_text(self.settings.read_text() + text)

    @property
    def arguments(self) -> list[str]:
        return ["/usr/bin/env", "-i", f"ENRICH_ENV={self.settings}", str(self.checkout / "jobs" / "nightly.sh")]

    def run(self, *before: str) -> "subprocess.CompletedProcess[str]":
        """`before` are variables to set in front of it."""
        return run(*self.arguments[:-1], *before, self.arguments[-1])

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[str]"]:
        """A slow night, in the middle of its work."""
        self.slow(0.1)
        with subprocess.Popen(self.arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                until = time.monotonic() + 30
                while not self.num_texts():
                    assert process.poll() is None, process.communicate()
                    assert time.monotonic() < until
                    time.sleep(0.05)
                yield process
            finally:
                process.kill()

    def num_texts(self) -> int:
        # While a new memory turns to its log, reading would mend it.
        memory = self.state / "memory.sqlite"
        if not memory.exists() or memory.with_name("memory.sqlite-journal").exists():
            return 0
        return len(texts_in(self.state))


def run(*arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, cwd="/", **options
    )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def seen(place: Place, tmp_path: Path) -> Path:
    """Where a stub of the command leaves what it was given."""
    place.command(STUB)
    (tmp_path / "seen").mkdir()
    place.add(f"SEEN={tmp_path / 'seen'}\n")
    return tmp_path / "seen"


def needs(program: str) -> str:
    return shutil.which(program) or pytest.skip(f"no {program} here: apt-get install it")


# --- the script ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_and_shellcheck_have_nothing_to_say(name: str) -> None:
    assert os.access(JOBS / name, os.X_OK)
    assert (run("bash", "-n", JOBS / name).stderr, run("bash", "-n", JOBS / name).returncode) == ("", 0)
    said = run(needs("shellcheck"), JOBS / name)
    assert (said.stdout, said.returncode) == ("", 0)


def test_what_is_set_becomes_flags_and_nothing_else_does(place: Place, seen: Path) -> None:
    place.set(INPUT=place.catalogue, SEEN=seen)
    assert place.run().returncode == 0
    assert (seen / "arguments").read_text().splitlines() == ["run", str(place.catalogue)]
    place.set(
        INPUT="a catalogue.json", OUTPUT="out.parquet", CONFIG="enrich.toml", STATE="state", DEADLINE="06:00",
        BUDGET="5.00", GPU_HOUR_PRICE="1.20", MAX_ROWS="10", PRIORITY="stock", LOG_FORMAT="json", METRICS="m.prom",
        EXTRA="--adapter none  --slots 8", SEEN=seen,
    )  # fmt: skip
    assert place.run().returncode == 0
    assert (seen / "arguments").read_text().splitlines() == [
        *("run", "a catalogue.json", "--output", "out.parquet", "--config", "enrich.toml", "--state", "state"),
        *("--deadline", "06:00", "--budget", "5.00", "--gpu-hour-price", "1.20", "--max-rows", "10"),
        *("--priority", "stock", "--log", "json", "--metrics", "m.prom", "--adapter", "none", "--slots", "8"),
    ]
    assert (seen / "folder").read_text().strip() == str(place.checkout.resolve())


def test_the_flags_it_knows_are_flags_of_the_command() -> None:
    script = (JOBS / "nightly.sh").read_text()
    told = set(re.findall(r"^flag (--[a-z-]+)", script, re.MULTILINE))
    assert len(told) == script.count("\nflag --") == 10
    assert told <= flags_of("run")


def flags_of(command: str) -> set[str]:
    commands = next(iter(build_parser()._subparsers._group_actions)).choices  # type: ignore[union-attr]
    return {flag for action in commands[command]._actions for flag in action.option_strings}  # type: ignore[index,call-overload]


def test_settings_are_read_and_never_run(place: Place, seen: Path, tmp_path: Path) -> None:
    place.settings.write_bytes(
        b"# INPUT=no\n; INPUT=no\n\n  INPUT=\"a 'b' $HOME.json\"  \r\nOUTPUT='x y'\nSTATE=$(touch " + bytes(tmp_path)
        + b"/ran)\nCONFIG=a \"b\"\nAWS_PROFILE=shop\nEXTRA=* ~\nSEEN=" + bytes(seen)
    )  # fmt: skip
    assert place.run().returncode == 0
    state = f"$(touch {tmp_path}/ran)"
    assert (seen / "arguments").read_text().splitlines() == (
        ["run", "a 'b' $HOME.json", "--output", "x y", "--config", 'a "b"', "--state", state, "*", "~"]
    )
    assert not (tmp_path / "ran").exists()
    assert "AWS_PROFILE=shop" in (seen / "environment").read_text().splitlines()


def test_it_makes_an_environment_of_its_own_and_lets_what_is_set_win(place: Place, seen: Path) -> None:
    place.add("PATH=/nowhere\nBUDGET=5\n")
    assert place.run("BUDGET=20").returncode == 0
    environment = dict(line.split("=", 1) for line in (seen / "environment").read_text().splitlines())
    assert "/usr/bin" in environment["PATH"].split(":")
    assert Path(environment["HOME"]).is_absolute()
    arguments = (seen / "arguments").read_text().splitlines()
    assert arguments[arguments.index("--budget") + 1] == "20"
    assert stat.S_IMODE((seen / "arguments").stat().st_mode) == 0o600
    (seen / "arguments").unlink()
    assert place.run("UMASK=027").returncode == 0
    assert stat.S_IMODE((seen / "arguments").stat().st_mode) == 0o640


@pytest.mark.parametrize("status", sorted(STATUSES))
def test_the_status_of_the_command_is_its_own(place: Place, seen: Path, status: int) -> None:
    assert place.run(f"STUB_STATUS={status}").returncode == status


@pytest.mark.parametrize(
    ("settings", "status", "says"),
    [
        ("INPUT=no/such.parquet\nEXTRA=--engine echo\n", 66, "enrich: no/such.parquet: no such"),
        ("INPUT={catalogue}\nBUDGET=five\nEXTRA=--engine echo\n", 64, "enrich: "),
        ("INPUT={catalogue}\nBUDGET=5\nEXTRA=--engine echo\n", 78, "enrich: "),
        ("OUTPUT=out.parquet\n", 78, "nightly.sh: "),
        ("INPUT={catalogue}\nUMASK=no\n", 78, "nightly.sh: "),
        ("INPUT={catalogue}\nLOG=/no/such/folder/log\n", 74, "nightly.sh: /no/such/folder/log: "),
        ("INPUT={catalogue}\nsecret words\n", 78, "nightly.sh: "),
        (None, 78, "nightly.sh: "),
    ],
)
def test_what_cannot_begin_is_one_line_and_a_status(place: Place, settings: str | None, status: int, says: str) -> None:
    if settings is None:
        place.settings.unlink()
    else:
        place.settings.write_text(settings.format(catalogue=place.catalogue))
    ended = place.run()
    assert (ended.returncode, ended.stdout) == (status, "")
    assert ended.stderr.startswith(says)
    assert ended.stderr.count("\n") == 1
    assert "secret" not in ended.stderr


def test_a_checkout_without_its_environment_is_told(place: Place) -> None:
    (place.checkout / ".venv" / "bin" / "enrich").unlink()
    ended = place.run()
    assert ended.returncode == 78
    assert "make setup" in ended.stderr


def test_of_two_starts_the_second_leaves_one_line(place: Place) -> None:
    with place.running():
        second = place.run()
        assert (second.returncode, second.stdout) == (75, "")
        assert re.fullmatch(r"enrich: another run holds .*\n", second.stderr)
        logged = place.run(f"LOG={place.log}")
        assert (logged.returncode, logged.stdout, logged.stderr) == (75, "", "")
        assert place.log.read_text() == second.stderr


def test_sigterm_ends_the_command_and_the_next_night_goes_on(place: Place) -> None:
    with place.running() as night:
        night.send_signal(signal.SIGTERM)
        start = time.monotonic()
        said = night.communicate(timeout=20)[1]
        assert time.monotonic() - start < 20
    assert night.returncode == 75
    assert said.splitlines()[-1] == "enrich: stopped by a signal; run again, nothing is lost"
    assert not place.output.exists()
    known = place.num_texts()
    assert 0 < known < 80
    # Nothing is left of it that would hold the lock. MAX_ROWS=0 publishes what is known, as the runbook says.
    place.slow(0.0)
    assert place.run("MAX_ROWS=0").returncode == 6
    assert place.num_texts() == known
    statuses = column(place.output, "enrich_status")
    assert statuses.count("pending") == 80 - known


# --- cron ------------------------------------------------------------------------------------------------------------


def cron_line(place: Place) -> str:
    """What cron hands to the shell: the last line without its five fields, here with the places of the test."""
    line = (JOBS / "crontab").read_text().splitlines()[-1]
    assert re.match(r"(\S+ ){5}[A-Z]", line)
    # cron would make a line's end of it.
    assert "%" not in line
    line = line.split(" ", 5)[5]
    assert line.count("/etc/enrich/nightly.env") == 1
    return line.replace("/opt/enrich/jobs/nightly.sh", f"{place.checkout}/jobs/nightly.sh", 1).replace(
        "/etc/enrich/nightly.env", str(place.settings)
    )


def test_the_line_of_the_crontab_works(place: Place) -> None:
    place.add(f"LOG={place.log}\nMETRICS={place.output.with_name('enrich.prom')}\n")
    ended = run("/usr/bin/env", "-i", "/bin/sh", "-c", cron_line(place))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", ""), place.log.read_text()
    assert column(place.output, "enrich_status").count("generated") > 0
    assert stat.S_IMODE(place.output.stat().st_mode) == 0o600
    assert "publishing" in place.log.read_text()
    assert "enrich_last_run_status 0.0" in place.output.with_name("enrich.prom").read_text()


@pytest.mark.parametrize("status", [0, 6, 75])
def test_cron_hears_of_failures_alone(place: Place, seen: Path, status: int) -> None:
    place.add(f"LOG={place.log}\nSTUB_STATUS={status}\n")
    ended = run("/usr/bin/env", "-i", "/bin/sh", "-c", cron_line(place))
    assert (ended.returncode, ended.stderr) == (status, "")
    assert ended.stdout.count("\n") == (0 if status in (0, 6) else 1)
    assert status in (0, 6) or f" {status}," in ended.stdout


# --- systemd ---------------------------------------------------------------------------------------------------------


def unit(name: str = "enrich-nightly.service") -> list[tuple[str, str]]:
    lines = (JOBS / name).read_text().splitlines()
    return [tuple(line.split("=", 1)) for line in lines if "=" in line and line[0] not in "#["]  # type: ignore[misc]


def test_systemd_has_nothing_to_say(tmp_path: Path) -> None:
    analyze = needs("systemd-analyze")
    for name in ("enrich-nightly.service", "enrich-nightly.timer"):
        (tmp_path / name).write_text((JOBS / name).read_text().replace("/opt/enrich", str(ROOT)))
    units = (tmp_path / "enrich-nightly.service", tmp_path / "enrich-nightly.timer")
    said = run(analyze, "verify", *units)
    assert (said.stdout, said.stderr, said.returncode) == ("", "", 0)
    # The control: it would have.
    units[0].write_text(units[0].read_text().replace("KillMode=mixed", "KillMood=mixed"))
    assert "KillMood" in run(analyze, "verify", *units).stderr


def test_the_unit_starts_again_what_the_runbook_says() -> None:
    settings = dict(unit())
    again = {int(status) for status in settings["RestartForceExitStatus"].split()}
    assert again == {status for status, by_itself in table().items() if by_itself.startswith("yes")}
    assert settings["SuccessExitStatus"] == "6"
    assert int(settings["TimeoutStopSec"]) >= 30
    # One hides /dev/nvidia*, the other forbids what Triton does.
    assert not {"PrivateDevices", "MemoryDenyWriteExecute"} & settings.keys()


@pytest.mark.parametrize("name", ["enrich-nightly.service", "enrich-nightly.timer"])
def test_every_block_of_a_unit_says_why(name: str) -> None:
    before, silent = "", []
    for line in (JOBS / name).read_text().splitlines():
        begins_a_block = not before or before[0] == "["
        if begins_a_block and "=" in line and line[0] != "#" and not line.startswith("Description="):
            silent.append(line)
        before = line
    assert not silent


# --- installing ------------------------------------------------------------------------------------------------------

INSTALLED = {
    "etc/enrich/nightly.env",
    "etc/systemd/system/enrich-nightly.service",
    "etc/systemd/system/enrich-nightly.timer",
    "etc/logrotate.d/enrich",
}


def test_a_dry_run_tells_everything_and_changes_nothing(tmp_path: Path) -> None:
    ended = run(JOBS / "install.sh", "--dry-run", "--user", "enrich-nobody")
    assert (ended.returncode, ended.stderr) == (0, "")
    told = ["make user: enrich-nobody", "systemctl daemon-reload", "systemctl enable --now enrich-nightly.timer"]
    assert all(each in ended.stdout for each in [*told, *(f": /{path}\n" for path in INSTALLED)])
    assert run("id", "enrich-nobody").returncode != 0
    ended = run(JOBS / "install.sh", "--dry-run", "--prefix", tmp_path / "root")
    assert ended.returncode == 0
    assert all(f": {tmp_path}/root/{path}\n" in ended.stdout for path in INSTALLED)
    assert snapshot(tmp_path) == {}


def test_installing_writes_what_it_says_once_and_spares_the_settings(tmp_path: Path) -> None:
    install = (JOBS / "install.sh", "--prefix", tmp_path, "--user", "night")
    first = run(*install)
    assert (first.returncode, first.stderr) == (0, "")
    written = snapshot(tmp_path)
    assert {path for path, content in written.items() if content is not None} == INSTALLED
    assert {f"write: {tmp_path}/{path}" for path in INSTALLED} <= set(first.stdout.splitlines())
    service = (tmp_path / "etc/systemd/system/enrich-nightly.service").read_text()
    assert "\nUser=night\n" in service
    assert f"\nExecStart={ROOT}/jobs/nightly.sh\n" in service
    assert "su night night" in (tmp_path / "etc/logrotate.d/enrich").read_text()
    settings, timer = tmp_path / "etc/enrich/nightly.env", tmp_path / "etc/systemd/system/enrich-nightly.timer"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o640
    again = run(*install)
    assert not [line for line in again.stdout.splitlines() if line.startswith("write")]
    assert snapshot(tmp_path) == written
    settings.write_text("INPUT=mine\n")
    timer.write_text("stale\n")
    run(*install)
    assert settings.read_text() == "INPUT=mine\n"
    assert snapshot(tmp_path) == {**written, "etc/enrich/nightly.env": b"INPUT=mine\n"}


@pytest.mark.parametrize(
    "wrong", [["--nonsense"], ["--user"], ["--user", "a|b"], ["--prefix", ""]], ids=lambda wrong: " ".join(wrong)
)
def test_installing_refuses_what_it_does_not_understand(wrong: list[str]) -> None:
    ended = run(JOBS / "install.sh", "--dry-run", *wrong)
    assert ended.returncode == 64
    assert ended.stderr.startswith("install.sh: ")


def test_installing_needs_root_and_says_so() -> None:
    # Beside pytest's folders, which are for its user alone, a copy that any user may run.
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        script = shutil.copy(JOBS / "install.sh", folder)
        ended = run(script, user="nobody") if os.geteuid() == 0 else run(script)
    assert ended.returncode == 77
    assert "needs root" in ended.stderr


# --- papers ----------------------------------------------------------------------------------------------------------


def table() -> dict[int, str]:
    """Of the runbook's table: status → whether it starts again by itself."""
    section = RUNBOOK.split("\n## Exit statuses\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if re.match(r"\| \d+ \|", line)]
    assert all(len(row) == 4 for row in rows)
    return {int(row[0]): row[3] for row in rows}


def test_the_runbook_has_every_status() -> None:
    assert set(table()) == STATUSES


def test_settings_and_script_know_the_same_variables() -> None:
    told = set(re.findall(r"^#?([A-Z_]+)=", (JOBS / "nightly.env").read_text(), re.MULTILINE))
    script = (JOBS / "nightly.sh").read_text()
    used = set(re.findall(r"\$\{([A-Z_]+):-", script)) - {"ENRICH_ENV"}
    assert told == used
    assert len(told) == 14
    assert set(re.findall(r"`([A-Z_]+)=", RUNBOOK)) <= told


def test_the_commands_and_metrics_of_the_runbook_exist() -> None:
    commands = set(next(iter(build_parser()._subparsers._group_actions)).choices)  # type: ignore[union-attr,arg-type]
    assert set(re.findall(r"(?:`|^)enrich ([a-z]+)", RUNBOOK, re.MULTILINE)) <= commands
    flags = {flag for command in commands for flag in flags_of(command)}
    told = set(re.findall(r"`[^`\n]*?(--[a-z][a-z-]+)", RUNBOOK)) - {"--user", "--collector"}
    assert told <= flags
    code = (ROOT / "enrich" / "report" / "metrics.py").read_text()
    metrics = set(re.findall(r"\benrich_([a-z_]+)", RUNBOOK))
    assert len(metrics) == 9
    assert all(f'"{name}"' in code or f'"enrich_{name}"' in code for name in metrics)


def test_the_contents_of_the_runbook_are_its_headings() -> None:
    told = re.findall(r"^- \[(.+)\]\(#(.+)\)$", RUNBOOK, re.MULTILINE)
    assert [title for title, _ in told] == re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE)
    assert all(anchor == title.lower().replace(" ", "-") for title, anchor in told)


def test_make_installs_it() -> None:
    said = run("make", "--dry-run", "-C", ROOT, "install-nightly", "ARGS=--dry-run")
    assert said.stdout.splitlines()[-1 if "Leaving" not in said.stdout else -2].strip() == "jobs/install.sh --dry-run"


# --- several cards ---------------------------------------------------------------------------------------------------


def test_the_cluster_file_is_one_that_ray_takes() -> None:
    """By Ray's own schema. Every card is of one kind, the head has none, nobody without the token is listened
    to, and nothing is sent to Ray's makers."""
    yaml, jsonschema, ray = (pytest.importorskip(name) for name in ("yaml", "jsonschema", "ray"))
    cluster = yaml.safe_load((JOBS / "ray-cluster.yaml").read_text(encoding="utf-8"))
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster | {"no_such_key": 1}, schema)
    kinds = cluster["available_node_types"]
    assert [name for name, kind in kinds.items() if kind["resources"]["GPU"]] == ["card"]
    starting = [line for key in cluster if "start_ray" in key for line in cluster[key] if "ray start" in line]
    assert len(starting) == 2
    assert all(line.startswith("RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 ") for line in starting)
    assert cluster["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
