# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# /// script
# dependencies = ["nox>=2026.8.10", "antsibull-nox>=1.10"]
# ///

"""Sessions of nox: 'nox' is 'make check', 'nox --list' shows the others.

Sessions run programs of the environment that tests/requirements.lock pins, and install nothing;
those of the matrix and the import check have environments of their own, of what
tests/matrix/versions.toml pins.

antsibull-nox.toml adds what antsibull-nox can do that way. Its other sessions stay unused: those of
ansible-test need containers and ansible-core from GitHub, those of ansible-lint and antsibull-docs
install the newest versions at each run, docs-check accepts references to unknown collections, and
build-import-check accepts what the importer warns of.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import antsibull_nox
import nox
from nox.command import CommandFailed

ROOT = Path(__file__).resolve().parent
VERSIONS = tomllib.loads((ROOT / "tests/matrix/versions.toml").read_text())
# Checked by the session ansible-test-sanity, by the rules of its ansible-core.
STYLE_TESTS = ("pep8", "pylint")
SANITY = ("tools/sanity.py", "--color", "no")
ON_EACH_PYTHON = ("compile", "import")
# The unit tests that a controller and a target of the matrix run, by patterns in tests/unit.
OF_CONTROLLERS = ("controller",)
OF_TARGETS = ("test_*.py", "_*/test_*.py")

nox.needs_version = ">=2026.8.10"
nox.options.sessions = ["check"]
nox.options.default_venv_backend = "none"
nox.options.download_python = "never"
nox.options.parallel = 2
nox.options.allow_parallel = True
nox.options.reuse_venv = "yes"


def _locked_environment() -> tuple[str, str]:
    """Return the directory of what tests/requirements.lock pins, and the version of its Python."""
    program = "import sys; print(sys.prefix + '/bin', '%d.%d' % sys.version_info[:2], sep='\\n')"
    done = subprocess.run(
        [ROOT / "tools/setup", "check", "python", "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)
    directory, version = done.stdout.splitlines()
    return directory, version


def _pyenv_pythons() -> list[str]:
    """Return the directories of pyenv's Pythons; its own shims run some of them only."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return [str(path) for path in sorted(root.glob("versions/3.*/bin"))]


PROGRAMS, PYTHON_VERSION = _locked_environment()
# By its path, for sessions with an environment have another one first.
PYTHON = f"{PROGRAMS}/python"
os.environ["PATH"] = os.pathsep.join([PROGRAMS, *_pyenv_pythons(), os.environ["PATH"]])

antsibull_nox.load_antsibull_nox_toml()


def run_staged(session: nox.Session, *command: str) -> None:
    """Run a command in a copy of the working tree that lies where Ansible looks for collections."""
    session.run(PYTHON, "tools/stage.py", *command, external=True)


# The slow ones first, so that none of them is left over at the end.
CHECKS = (
    "ansible-test-sanity",
    "ansible-lint",
    "units",
    "simulated",
    "control-nodes",
    "docs-check",
    "pre-commit",
    "typing",
    "changelog",
    "lint",
    "extra-checks",
)


def sanity_of_hosts(python: str) -> list[str]:
    """Return the command that checks on a Python whether a managed host can import all."""
    tests = (word for test in ON_EACH_PYTHON for word in ("--test", test))
    # By its path, for the session may have an environment of its own.
    return [PYTHON, *SANITY, "--python", python, *tests]


@nox.session(requires=CHECKS)
def check(session: nox.Session) -> None:
    """Run what each commit must pass."""


@nox.session(
    name="check-beside-others",
    requires=["other-units" if name == "units" else name for name in CHECKS if name != "simulated"],
)
def check_beside_others(session: nox.Session) -> None:
    """Run what each commit must pass, but the tests that other parts of make test run."""


@nox.session(name="ansible-test-sanity")
def ansible_test_sanity(session: nox.Session) -> None:
    """Run ansible-test sanity; its compile and import tests on the oldest and newest Python."""
    skipped = (word for test in ON_EACH_PYTHON for word in ("--skip-test", test))
    run_staged(session, PYTHON, *SANITY, "--python", PYTHON_VERSION, *skipped)
    for row in (VERSIONS["targets"][0], VERSIONS["targets"][-1]):
        run_staged(session, *sanity_of_hosts(row["python"]))


@nox.session(name="ansible-lint")
def ansible_lint(session: nox.Session) -> None:
    """Run ansible-lint."""
    run_staged(session, "ansible-lint", "--nocolor", *session.posargs)


@nox.session
def units(session: nox.Session) -> None:
    """Run the unit tests, or pytest with other arguments: nox -s units -- tests/unit -k udev."""
    run_staged(session, "pytest", *(session.posargs or ["tests/unit"]))


@nox.session(name="other-units")
def other_units(session: nox.Session) -> None:
    """Run the unit tests that the matrix does not: of the guest, the simulator and the tools."""
    units = ROOT / "tests/unit"
    of_matrix = {path for pattern in (*OF_CONTROLLERS, *OF_TARGETS) for path in units.glob(pattern)}
    others = [
        path for path in sorted(units.rglob("test_*.py")) if not of_matrix & {path, path.parent}
    ]
    run_staged(session, "pytest", *(str(path.relative_to(ROOT)) for path in others))


@nox.session
def simulated(session: nox.Session) -> None:
    """Run the tests on simulated machines."""
    run_staged(session, "pytest", "tests/simulated", *session.posargs)


@nox.session(name="control-nodes")
def control_nodes(session: nox.Session) -> None:
    """Run the tests of execution environments, job templates and the programs of roles."""
    pull = ("tests/pull/test_values.py", "tests/pull/test_take_commit.py")
    modules = (
        "tests/vfio_modules/test_role.py",
        "tests/vfio_modules/test_take_source.py",
        "tests/vfio_modules/test_update_initramfs.py",
    )
    run_staged(session, "pytest", "tests/environment", *pull, *modules, *session.posargs)


@nox.session(name="docs-check")
def docs_check(session: nox.Session) -> None:
    """Run antsibull-docs on the documentation of plugins and roles, and on all its references."""
    references = ("--validate-collection-refs", "all", "--disallow-unknown-collection-refs")
    run_staged(session, "antsibull-docs", "lint-collection-docs", "--plugin-docs", *references, ".")


@nox.session(name="pre-commit")
def pre_commit(session: nox.Session) -> None:
    """Run the hooks of pre-commit on all files; on those that git does not track yet as well."""
    listing = "git ls-files --cached --others --exclude-standard -z"
    session.run("sh", "-c", f"{listing} | xargs --null pre-commit run --files")


@nox.session(name="format")
def format_code(session: nox.Session) -> None:
    """Format Python, and fix what ruff can fix."""
    session.run("ruff", "check", "--fix")
    session.run("ruff", "format")


@nox.session
def typing(session: nox.Session) -> None:
    """Run mypy."""
    run_staged(session, "mypy")
    run_staged(session, "mypy", "roles/pull/files/take_commit.py")
    run_staged(session, "mypy", "roles/vfio_modules/files/take_source.py")
    run_staged(session, "mypy", "roles/vfio_modules/files/update_initramfs.py")


@nox.session
def changelog(session: nox.Session) -> None:
    """Check the fragments of the changelog."""
    run_staged(session, "antsibull-changelog", "lint")


@nox.session
def package(session: nox.Session) -> None:
    """Build the package, and use what is left of it when all but its content is deleted."""
    run_staged(session, "python", "tools/package.py")


@nox.session(
    name="build-import-check", requires=["package"], python=PYTHON_VERSION, venv_backend="venv"
)
def build_import_check(session: nox.Session) -> None:
    """Have Galaxy's importer read the package; a warning of it is a failure."""
    session.install(*VERSIONS["galaxy_importer"]["packages"])
    (archive,) = (ROOT / "build/package").glob("*.tar.gz")
    directory = Path(session.create_tmp())
    settings = directory / "galaxy-importer.cfg"
    settings.write_text("[galaxy-importer]\ncheck_required_tags = true\n")
    # It leaves its result in the directory in which it runs.
    with session.chdir(directory):
        command = ("python", "-m", "galaxy_importer.main", str(archive))
        output = session.run(*command, env={"GALAXY_IMPORTER_CONFIG": str(settings)}, silent=True)
    if any(line.startswith(("WARNING", "ERROR")) for line in str(output).splitlines()):
        session.error(f"the importer is not content:\n{output}")


class Matrix:
    """One version, in an environment and a copy of the collection of its own."""

    def __init__(self, session: nox.Session, name: str) -> None:
        self._session = session
        self._root = ROOT / "build/matrix" / name
        self.collection = self._root / "ansible_collections/armfleet/vfio"
        shutil.rmtree(self._root, ignore_errors=True)
        self.collection.mkdir(parents=True)
        run_staged(session, "cp", "--archive", ".", str(self.collection))
        self._failed: list[str] = []

    def run(self, what: str, *command: str) -> None:
        """Run a command of the version in the copy; others follow even if it fails."""
        root = str(self._root)
        environment = {"PYTHONPATH": root, "ANSIBLE_COLLECTIONS_PATH": root}
        try:
            with self._session.chdir(self.collection):
                self._session.run(*command, env=environment, external=True)
        except CommandFailed:
            self._failed.append(what)

    def end(self) -> None:
        if self._failed:
            self._session.error(f"failed: {', '.join(self._failed)}")


def _add_controller(ansible_core: str, python: str, tags: Sequence[str]) -> None:
    """Add the session of an ansible-core on the control node."""
    name = ansible_core.rpartition(".")[0]

    def controller(session: nox.Session) -> None:
        tests = [*VERSIONS["unit_tests"][python], *VERSIONS["controller_tests"]["packages"]]
        session.install(f"ansible-core=={ansible_core}", *tests)
        matrix = Matrix(session, name)
        # For make test, those of one ansible-core in the part check are enough.
        if session.posargs != ["--depth", "test"]:
            skipped = (word for test in STYLE_TESTS for word in ("--skip-test", test))
            matrix.run("sanity", "python", *SANITY, "--python", python, *skipped)
        units = [f"tests/unit/{pattern}" for pattern in OF_CONTROLLERS]
        matrix.run("units", "python", "-m", "pytest", "-q", *units)
        # The test and its boards are on our own Python; ansible-playbook is the first in PATH.
        role = (PYTHON, "-m", "pytest", "-q", "tests/matrix", "--ansible-core", ansible_core)
        matrix.run("role on boards", *role, *session.posargs)
        matrix.end()

    controller.__doc__ = f"Run sanity, units and the role with ansible-core {ansible_core}."
    _add_to_matrix(name, python, tags, controller)


def _add_target(ansible_core: str, python: str, tags: Sequence[str]) -> None:
    """Add the session of a Python on the managed host."""

    def target(session: nox.Session) -> None:
        session.install(*VERSIONS["unit_tests"][python])
        # A host is sent a part of it, and has not the rest that it would need to run.
        session.install("--no-deps", "--ignore-requires-python", f"ansible-core=={ansible_core}")
        matrix = Matrix(session, python)
        # Those of module_utils' packages and of examples; the others need more than a host has.
        units = matrix.collection / "tests/unit"
        tests = sorted(str(path) for pattern in OF_TARGETS for path in units.glob(pattern))
        matrix.run("units", "python", "-m", "pytest", "-q", *tests)
        # make check has the ends.
        if session.posargs != ["--depth", "test"]:
            run_staged(session, *sanity_of_hosts(python))
        matrix.end()

    target.__doc__ = (
        f"Run the units of module_utils, and its sanity tests at night, on Python {python}."
    )
    _add_to_matrix(python, python, tags, target)


def _add_to_matrix(
    name: str, python: str, tags: Sequence[str], function: Callable[[nox.Session], None]
) -> None:
    add = nox.session(name=f"matrix-{name}", python=python, venv_backend="venv", tags=tags)
    add(function)


# The slow ones first, and from the oldest to the newest.
for add_row, rows in (
    (_add_controller, VERSIONS["controllers"]),
    (_add_target, VERSIONS["targets"]),
):
    for row in rows:
        # Hosts with the newest Python are left for the night: make check has a new one.
        often = (rows[0], rows[-1]) if add_row is _add_controller else rows[:1]
        add_row(**row, tags=["matrix-nightly", *(["matrix-test"] if row in often else [])])

if __name__ == "__main__":
    nox.main()
