# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of make test and make nightly: what tools/suite.py runs."""

from __future__ import annotations

from typing import NamedTuple

# The kernels of the guest, by their names in tests/guest.
KERNELS = ("debian", "6.12", "7")
# The releases of Debian beside the default whose programs guests have, the oldest first.
USERLANDS = ("bullseye", "bookworm", "forky")
_MAIN_JOB = "tests/integration/test_main_job.py"


class Part(NamedTuple):
    """A command that passes if it exits with 0; without one, only the environment is set up."""

    name: str
    command: tuple[str, ...] = ()
    environment: str = "guest"
    # Names of parts in SHARED.
    needs: tuple[str, ...] = ()

    @property
    def argv(self) -> list[str]:
        """Return the whole command, to run in the root of the checkout."""
        # The sessions of nox stage their commands themselves.
        is_staged = self.command and self.command[0] != "nox"
        stage = ["python", "tools/stage.py"] if is_staged else []
        return ["tools/setup", self.environment, *stage, *self.command]


def _guest(kernel: str) -> Part:
    return Part(f"guest-{kernel}", ("python", "-m", "tests.guest", "build", "--kernel", kernel))


def _userland(suite: str) -> Part:
    words = ("python", "-m", "tests.guest", "build", "--kernel", "6.12", "--userland", suite)
    return Part(f"guest-{suite}", words, needs=("guest-6.12",))


# Preparations that several parts share. They run once, in this order and one at a time: apt has one
# lock, and the compilation of a kernel uses both cores. Parts that need none of them run meanwhile.
SHARED = [
    Part("setup-guest"),
    _guest("debian"),
    _guest("6.12"),
    Part("setup-molecule", environment="molecule"),
    Part("setup-report", environment="report"),
    _guest("7"),
    *map(_userland, USERLANDS),
]


def _part(name: str, *command: str, environment: str = "guest", guests: str = "") -> Part:
    setup = [] if environment == "check" else [f"setup-{environment}"]
    needed = [f"guest-{guest}" for guest in guests.split()]
    return Part(name, command, environment, (*setup, *needed))


def _pytest(
    depth: str, name: str, *words: str, environment: str = "guest", guests: str = ""
) -> Part:
    command = ("pytest", *words, "--depth", depth)
    return _part(name, *command, environment=environment, guests=guests)


def _boots(depth: str, kernel: str) -> list[Part]:
    chosen = ("--kernel", kernel)
    initramfs = "tests/boots/test_initramfs.py"
    others = ("tests/boots", "--ignore", initramfs)
    by_night = [_pytest(depth, f"boots-{kernel}", *others, *chosen, guests=kernel)]
    return [
        *(by_night if depth == "nightly" else []),
        _pytest(depth, f"initramfs-{kernel}", initramfs, *chosen, guests=kernel),
    ]


def _pci(depth: str, kernel: str) -> Part:
    return _pytest(depth, f"pci-{kernel}", "tests/pci", "--kernel", kernel, guests=kernel)


def _on_userland(name: str, suite: str, *files: str) -> Part:
    # All of them are marked for the night.
    return _pytest(
        *("nightly", f"{name}-{suite}", *files, "--userland", suite), guests=f"6.12 {suite}"
    )


def _main_job_on_userland(depth: str, suite: str) -> Part:
    # What others configured, read beside the programs that read it as well.
    foreign = [f"tests/integration/test_{name}.py" for name in ("driverctl", "why")]
    foreign.append("tests/integration/test_udev_rules_of_others.py")
    return _on_userland("userland", suite, _MAIN_JOB, *(foreign if depth == "nightly" else []))


def _boots_of_userland(suite: str) -> Part:
    booted = [f"tests/boots/test_{name}.py" for name in ("device_tree", "initramfs")]
    return _on_userland("boots", suite, *booted)


def _parts_by_night() -> list[Part]:
    """Return the parts that only make nightly has."""
    depth = "nightly"
    return [
        _pytest(depth, "fleet", "tests/fleet", "-s", guests="debian 6.12"),
        *_boots(depth, "6.12"),
        *_boots(depth, "7"),
        _pci(depth, "6.12"),
        _pci(depth, "7"),
        _pytest(depth, "integration-debian", _MAIN_JOB, "--kernel", "debian", guests="debian"),
        *(_main_job_on_userland(depth, suite) for suite in USERLANDS[1:]),
        *map(_boots_of_userland, USERLANDS),
        # Its drivers are of the source that guest-6.12 downloads.
        _pytest(depth, "versal", "tests/versal", guests="debian 6.12"),
        # It builds the site, as make docs does without a browser.
        _pytest(depth, "site", "tests/site", environment="report"),
        # The part check runs these files as well, except for what is left for the night.
        _pytest(
            *(depth, "roles", "tests/pull/test_take_commit.py", "tests/vfio_modules/test_role.py")
        ),
    ]


def parts(depth: str) -> list[Part]:
    """Return the parts of make test or make nightly, the longest first.

    A part with the same command in both is run once for a tree that passes it. Two parts run at
    the same time, so each names its guests differently.
    """
    is_nightly = depth == "nightly"
    # Galaxy's importer reads what the session package has built.
    package = "build-import-check" if is_nightly else "package"
    scenarios = ("--all",) if is_nightly else ("--scenario-name", "default")
    by_guest = ("pull", "hostile_server", *(("removal",) if is_nightly else ()))
    by_archive = ("build", *(("upgrade",) if is_nightly else ()))
    return [
        _pytest(depth, "integration", "tests/integration", guests="6.12"),
        _pytest(depth, "safety", "tests/safety", guests="debian 6.12"),
        *_boots(depth, "debian"),
        _pci(depth, "debian"),
        _main_job_on_userland(depth, USERLANDS[0]),
        # The other files of tests/pull need no guest, and belong to the part check.
        _pytest(
            *(depth, "pull", *(f"tests/pull/test_{name}.py" for name in by_guest)), guests="6.12"
        ),
        _part("check", "nox", "--sessions", "check-beside-others", environment="check"),
        _part("matrix", "nox", "--tags", f"matrix-{depth}", "--", "--depth", depth),
        # The other files of tests/vfio_modules belong to the part check as well.
        _pytest(
            *(depth, "vfio-modules"),
            *(f"tests/vfio_modules/test_{name}.py" for name in by_archive),
            guests="debian",
        ),
        _pytest(depth, "simulated", "tests/simulated"),
        *(_parts_by_night() if is_nightly else []),
        _pytest(depth, "sweep", "tests/sweep", "-s"),
        _part("molecule", "molecule", "test", *scenarios, environment="molecule"),
        _pytest(depth, "report", "tests/report", "tests/editor", "-s", environment="report"),
        Part("demo", ("tools/demo",), "demo", ("guest-debian",)),
        _part("package", "nox", "--sessions", package, environment="check"),
    ]
