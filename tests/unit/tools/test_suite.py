# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The suite runs its parts, reports the result of each, and repeats none in nightly runs."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT, Checkout

# Each part is a script in 'parts', and adds a line to 'runs' beside the checkout.
RUN = """\
#!/bin/sh
set -e
outside=../../../../..
echo "$1" >>$outside/runs
. "parts/$1"
"""
PARTS = """\
SHARED[:] = [Part("setup-guest"), Part("guest-debian", ("sh", "run", "guest-debian"))]


def parts(depth: str) -> list[Part]:
    return [
        _part("first", "sh", "run", "first", environment="check"),
        _part("second", "sh", "run", "second", guests="debian"),
        *([_part("late", "sh", "run", "late", depth)] if depth == "nightly" else []),
    ]
"""
# Results as pytest writes them.
RESULTS = """\
cat >$ARMFLEET_TEST_RESULTS/%s.xml <<'EOF'
<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" errors="0" failures="0">
%s
</testsuite></testsuites>
EOF
"""
CASE = '<testcase classname="tests.%s" name="test_%s" time="%.3f">%s</testcase>'


def results(module: str, **seconds: float) -> str:
    cases = (CASE % (module, test, took, "") for test, took in seconds.items())
    return RESULTS % (module, "\n".join(cases))


def skipped(reason: str, kind: str = "pytest.skip") -> str:
    inner = f'<skipped type="{kind}" message="{reason}">file.py:1: {reason}</skipped>'
    return RESULTS % ("skipped", CASE % ("odd", "skipped", 0, inner))


class Suite(Checkout):
    """A checkout whose parts pass unless a test replaces them."""

    def create(self) -> None:
        super().create()
        self.set_parts(PARTS)
        self.write("run", RUN)
        (self.root / "parts").mkdir()
        for name in ("first", "second", "late", "guest-debian"):
            self.write(f"parts/{name}", "")
        self.commit()

    def took(self) -> list[str]:
        """Return the sorted names of the parts that have run since the last call."""
        runs = self.root.parent / "runs"
        names = runs.read_text().split() if runs.exists() else []
        runs.unlink(missing_ok=True)
        return sorted(names)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("original")
    Suite(directory).create()
    return directory


@pytest.fixture
def suite(original: Path, tmp_path: Path) -> Suite:
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return Suite(tmp_path)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.splitlines()[-1]


def row(done: subprocess.CompletedProcess[str], part: str) -> list[str]:
    """Return the columns of a part's row after its name and seconds, which must be present."""
    match = re.search(rf"^{part} +\d+ +(\S+)(?:  (.*))?$", done.stdout, re.MULTILINE)
    assert match, done.stdout
    return [column for column in match.groups() if column]


def test_all_parts_of_a_tier_run_with_what_they_need(suite: Suite) -> None:
    done = suite.suite("test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert suite.took() == ["first", "guest-debian", "second"]
    assert last_line(done) == "parts: 4 passed, 0 failed"


def test_each_part_is_reported_when_it_starts_and_when_it_ends(suite: Suite) -> None:
    output = suite.suite("test").stdout
    assert re.search(
        r"^part second: started\n(.*\n)*?part second: ok, \d+ s$", output, re.MULTILINE
    )


def test_the_table_has_seconds_and_tests_of_each_part(suite: Suite) -> None:
    suite.write("parts/first", results("one", a=1, b=2) + results("other", c=3))
    suite.write("parts/second", results("third", d=4))
    done = suite.suite("test")
    assert row(done, "first") == ["3", "ok"]
    assert row(done, "second") == ["1", "ok"]
    assert row(done, "guest-debian") == ["-", "ok"]
    assert row(done, "total") == ["4"]


def test_the_ten_slowest_tests_are_those_of_all_parts(suite: Suite) -> None:
    suite.write("parts/first", results("quick", **{f"q{number}": number for number in range(9)}))
    suite.write("parts/second", results("slow", **{f"s{n}": n + 0.5 for n in range(5, 15)}))
    lines = suite.suite("test").stdout.splitlines()
    begin = lines.index("The slowest tests:") + 1
    slowest = [line.split() for line in lines[begin : begin + 11]]
    assert slowest[0] == ["14.5", "s", "second:", "tests.slow::test_s14"]
    assert slowest[7] == ["8.0", "s", "first:", "tests.quick::test_q8"]
    assert [float(words[0]) for words in slowest[:10]] == [
        *(14.5, 13.5, 12.5, 11.5, 10.5, 9.5, 8.5, 8.0, 7.5, 7.0),
    ]
    assert slowest[10] == []


def test_every_pytest_of_a_part_is_counted(suite: Suite) -> None:
    (suite.root / "tests").mkdir()
    shutil.copy(ROOT / "tests/conftest.py", suite.root / "tests")
    suite.write("pyproject.toml", "[tool.pytest]\n")
    suite.write("tests/test_odd.py", "def test_it(depth): assert depth == 'nightly'\n")
    pytest = "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 pytest tests --depth nightly\n"
    suite.write("parts/first", pytest + pytest)
    assert row(suite.suite("test"), "first") == ["2", "ok"]


def test_a_part_that_fails_fails_the_suite_and_shows_its_output(suite: Suite) -> None:
    suite.write("parts/first", "echo what went well; echo details >&2; exit 3\n")
    suite.write("parts/second", "echo nobody needs this\n")
    done = suite.suite("test")
    assert done.returncode == 1
    assert "what went well\ndetails\n" in done.stdout
    assert "nobody needs this" not in done.stdout
    assert "nobody needs this" in suite.read("build/suite/second.log")
    assert row(done, "first") == ["-", "FAILED"]
    assert last_line(done) == "parts: 3 passed, 1 failed"


def test_a_part_is_not_run_without_what_it_needs(suite: Suite) -> None:
    suite.write("parts/guest-debian", "exit 1\n")
    done = suite.suite("test")
    assert done.returncode == 1
    assert suite.took() == ["first", "guest-debian"]
    assert row(done, "second") == ["-", "not run, guest-debian failed"]
    assert last_line(done) == "parts: 2 passed, 2 failed"


def test_what_is_shared_is_made_in_one_lane_while_other_parts_run(suite: Suite) -> None:
    seven = 'SHARED.append(Part("guest-7", ("sh", "run", "guest-7")))\n'
    suite.set_parts(PARTS.replace('guests="debian"', 'guests="debian 7"') + seven)
    os.mkfifo(suite.root.parent / "meeting")
    suite.write("parts/guest-debian", "timeout 60 cat $outside/meeting; touch $outside/built\n")
    suite.write("parts/first", "timeout 60 sh -c 'echo here >../../../../../meeting'\n")
    suite.write("parts/guest-7", "test -e $outside/built\n")
    done = suite.suite("test")
    assert done.returncode == 0, done.stdout


def test_make_test_runs_everything_again(suite: Suite) -> None:
    suite.suite("test")
    suite.took()
    suite.suite("test")
    assert suite.took() == ["first", "guest-debian", "second"]


def test_by_night_only_what_has_not_passed_on_this_tree_is_run(suite: Suite) -> None:
    suite.write("parts/first", results("one", a=1) + skipped("no udev here"))
    suite.suite("test")
    suite.took()
    done = suite.suite("nightly")
    assert suite.took() == ["late"]
    assert row(done, "first") == ["2", "ok, before"]
    assert "no udev here" in done.stdout
    assert last_line(done) == "parts: 4 passed, 0 failed"
    assert last_line(suite.suite("nightly")) == "parts: 3 passed, 0 failed"
    assert suite.took() == []


def test_a_night_is_taken_up_again_where_it_failed(suite: Suite) -> None:
    suite.write("parts/late", "test -e $outside/fixed\n")
    assert suite.suite("nightly").returncode == 1
    suite.took()
    (suite.root.parent / "fixed").touch()
    assert suite.suite("nightly").returncode == 0
    assert suite.took() == ["late"]


@pytest.mark.parametrize("change", ["content", "mode", "new file", "removal"])
def test_another_tree_is_tested_again(suite: Suite, change: str) -> None:
    suite.suite("nightly")
    suite.took()
    if change == "content":
        suite.write("run", RUN + "# the same but for this\n")
    elif change == "mode":
        (suite.root / "run").chmod(0o755)
    elif change == "new file":
        suite.write("new", "")
    else:
        (suite.root / ".gitignore").rename(suite.root / ".git/info/exclude")
    suite.suite("nightly")
    assert suite.took() == ["first", "guest-debian", "late", "second"]


def test_a_part_with_another_command_by_night_is_run(suite: Suite) -> None:
    suite.set_parts(PARTS.replace('"run", "first"', '"run", "first", depth'))
    suite.suite("test")
    suite.took()
    suite.suite("nightly")
    assert suite.took() == ["first", "late"]


def test_a_tree_that_is_changed_while_a_part_runs_has_not_passed_it(suite: Suite) -> None:
    suite.write("parts/first", "date >../../../../new\n")
    done = suite.suite("nightly")
    assert row(done, "first") == ["-", "ok, but the tree has changed"]
    suite.took()
    suite.write("parts/first", "")
    suite.suite("nightly")
    assert "first" in suite.took()


def test_what_could_not_be_run_is_named_with_the_reason(suite: Suite) -> None:
    missing = "Python interpreter 3.10 not found"
    skipped_session = f"nox > * matrix-2.16: skipped ({missing}), took 0 seconds"
    # It ends after the second, and is named before it.
    wait = "until ls ../../../suite/passed/second-* > /dev/null 2>&1; do :; done\n"
    suite.write("parts/first", f"{wait}echo '{skipped_session}'\n")
    whole_file = (
        '<testcase classname="" name="tests.odd.test_fuse" time="0.0">'
        '<skipped message="collection skipped">'
        "('/a/tests/odd/test_fuse.py', 24, 'Skipped: hosts need root and /dev/fuse')"
        "</skipped></testcase>"
    )
    results = skipped("udevadm is too old") + RESULTS % ("whole", whole_file)
    suite.write("parts/second", results)
    lines = suite.suite("test").stdout.splitlines()
    begin = lines.index("Not run:")
    assert lines[begin + 1 : begin + 4] == [
        f"  first: matrix-2.16: {missing}",
        "  second: tests.odd, 1 skipped: udevadm is too old",
        "  second: tests.odd.test_fuse, 1 skipped: hosts need root and /dev/fuse",
    ]


def test_a_test_that_is_expected_to_fail_was_run(suite: Suite) -> None:
    suite.write("parts/first", skipped("a bug of others", kind="pytest.xfail"))
    assert "Not run" not in suite.suite("test").stdout


def test_a_part_alone_has_what_it_needs_and_the_terminal(suite: Suite) -> None:
    suite.write("parts/second", 'echo "in full view: $*"\n')
    done = suite.suite("part", "second", "-k", "this")
    assert done.stdout == "in full view: second -k this\n"
    assert suite.took() == ["guest-debian", "second"]


def test_the_exit_status_of_a_part_alone_is_its_own(suite: Suite) -> None:
    suite.write("parts/late", "echo $2; exit 3\n")
    done = suite.suite("part", "--depth", "test", "late")
    assert (done.returncode, done.stdout) == (3, "nightly\n")


def test_a_part_that_there_is_not_is_refused(suite: Suite) -> None:
    done = suite.suite("part", "fourth")
    assert done.returncode == 1
    assert "no part 'fourth'; it has first, guest-debian, late" in done.stderr


@pytest.fixture
def fifo(suite: Suite) -> Iterator[int]:
    """Yield the read end of a FIFO; it ends when no process of a part has it open for writing."""
    path = suite.root.parent / "fifo"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield descriptor
    os.close(descriptor)


def next_of(descriptor: int) -> bytes:
    """Return the next bytes that are written, none after all writers have closed it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(60_000), "it stays silent and open"
    return os.read(descriptor, 100)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_parts_and_all_that_they_started(
    suite: Suite, fifo: int, number: signal.Signals
) -> None:
    # A shell starts background children with SIGINT ignored.
    suite.write("parts/first", "(exec 3>$outside/fifo; echo up >&3; exec sleep 600) & wait\n")
    with subprocess.Popen(
        [sys.executable, "tools/suite.py", "test"],
        cwd=suite.root,
        env=suite.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert next_of(fifo) == b"up\n"
        process.send_signal(number)
        said = process.communicate(timeout=60)[0]
    assert next_of(fifo) == b""
    assert process.returncode == 130
    assert said.endswith("suite: interrupted; all running parts have ended\n")
    suite.write("parts/first", "")
    suite.took()
    suite.suite("nightly")
    assert "first" in suite.took()


def test_every_part_has_a_target_of_make() -> None:
    program = (
        "import parts\n"
        "names = [part.name for part in [*parts.SHARED, *parts.parts('nightly')]]\n"
        "assert len(names) == len(set(names))\n"
        "assert {part.name for part in parts.parts('test')} <= set(names)\n"
        "for part in parts.parts('nightly'):\n"
        "    assert set(part.needs) <= {part.name for part in parts.SHARED}\n"
        "print(*sorted(name for name in names if not name.startswith('setup-')))\n"
    )
    names = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()
    shown = ["make", "--silent", "--eval", "shown: ; @echo $(sort $(PARTS))", "shown"]
    targets = subprocess.run(shown, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    # The demo has its own target, which requires less of the machine than the suite.
    assert sorted([*targets.split(), "demo"]) == names
