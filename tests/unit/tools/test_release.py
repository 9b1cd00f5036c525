"""A release is made of a clean, tested tree alone; where it is refused, all is as before."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TOOLS = ("release.py", "tested.py", "stage.py")
PEOPLE = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
PAGE = "Install armfleet-vfio-0.1.0.tar.gz.\n"
# In place of what takes minutes.
ANTSIBULL_CHANGELOG = """\
#!/bin/sh
set -e
test ! -e ../changelog-fails
cat changelogs/fragments/* >CHANGELOG.md
rm changelogs/fragments/*
"""
PACKAGE = """\
import sys
from pathlib import Path
place = Path(sys.argv[1])
place.mkdir(parents=True, exist_ok=True)
(place / "armfleet-vfio-1.0.0.tar.gz").write_bytes(Path("galaxy.yml").read_bytes())
"""
IMPORTER = """\
import sys
from pathlib import Path
(archive,) = Path(sys.argv[1]).glob("*.tar.gz")
sys.exit("WARNING: bad" if b"vfio" not in archive.read_bytes() else 0)
"""


class Repository:
    """A small one with the tools of this one, in which make test has passed."""

    def __init__(self, place: Path) -> None:
        self.root = place / "clone"
        for folder in ("tools", "changelogs/fragments", "docs"):
            (self.root / folder).mkdir(parents=True)
        for tool in TOOLS:
            shutil.copy(ROOT / "tools" / tool, self.root / "tools")
        self.write("tools/package.py", PACKAGE)
        self.write("tools/importer.py", IMPORTER)
        self.write("galaxy.yml", "namespace: armfleet\nname: vfio\nversion: 0.1.0\n")
        self.write("changelogs/changelog.yaml", "releases: {0.1.0: {}}\n")
        self.write("changelogs/fragments/new.yml", "minor_changes: [Something new.]\n")
        self.write("docs/page.md", PAGE)
        self.write(".gitignore", "/build/\n")
        programs = place / "programs"
        programs.mkdir()
        (programs / "antsibull-changelog").write_text(ANTSIBULL_CHANGELOG)
        (programs / "antsibull-changelog").chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            **dict.fromkeys(PEOPLE, "test@example.com"),
        }
        self.git("init", "--quiet", "--initial-branch", "main")
        self.commit()
        self.tested("begin")
        self.tested("end")

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def git(self, *words: str) -> str:
        return self._run("git", *words, check=True).stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change something")

    def tested(self, word: str) -> None:
        self._run("python", "tools/tested.py", word, check=True)

    def release(self, version: str) -> subprocess.CompletedProcess[str]:
        return self._run("python", "tools/release.py", version)

    def state(self) -> tuple[str, ...]:
        words = (("rev-parse", "HEAD"), ("status", "--porcelain"), ("tag", "--list"))
        return tuple(self.git(*one) for one in words)

    def _run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=check,
        )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def refusal(repository: Repository, version: str = "1.0.0") -> str:
    """What is said; nothing may have changed."""
    before = repository.state()
    done = repository.release(version)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert repository.state() == before
    return done.stderr


def test_a_tested_tree_is_released(repository: Repository) -> None:
    done = repository.release("1.0.0")
    assert done.returncode == 0, done.stderr
    assert "git push origin main 1.0.0\n" in done.stdout
    publish = "ansible-galaxy collection publish build/package/armfleet-vfio-1.0.0.tar.gz\n"
    assert publish in done.stdout
    assert "version: 1.0.0\n" in repository.read("build/package/armfleet-vfio-1.0.0.tar.gz")
    assert "Something new" in repository.read("CHANGELOG.md")
    assert "armfleet-vfio-1.0.0.tar.gz" in repository.read("docs/page.md")
    assert repository.git("log", "-1", "--format=%s") == "Release 1.0.0"
    assert repository.git("cat-file", "-t", "1.0.0") == "tag"
    assert repository.git("rev-parse", "1.0.0^{}") == repository.git("rev-parse", "HEAD")
    assert repository.git("status", "--porcelain") == ""


def test_what_is_not_committed_is_refused_and_named(repository: Repository) -> None:
    repository.write("docs/page.md", "other\n")
    assert "docs/page.md" in refusal(repository)


def test_another_branch_is_refused(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--create", "work")
    assert "this is work" in refusal(repository)


@pytest.mark.parametrize("version", ["0.1.0", "0.0.9"])
def test_a_version_that_is_not_newer_is_refused(repository: Repository, version: str) -> None:
    assert "not newer than 0.1.0" in refusal(repository, version)


def test_a_version_that_has_a_tag_is_refused(repository: Repository) -> None:
    repository.git("tag", "1.0.0")
    assert "not newer than 1.0.0" in refusal(repository)


@pytest.mark.parametrize("version", ["", "1.0", "v1.0.0", "1.0.0-rc1", "01.0.0", "1.0.0\n"])
def test_what_is_no_version_is_refused(repository: Repository, version: str) -> None:
    assert "is no version" in refusal(repository, version)


def test_a_changelog_without_news_is_refused(repository: Repository) -> None:
    repository.git("rm", "--quiet", "changelogs/fragments/new.yml")
    repository.commit()
    assert "changelogs/fragments is empty" in refusal(repository)


def test_a_tree_that_was_changed_after_its_tests_is_refused(repository: Repository) -> None:
    repository.write("docs/page.md", "other\n")
    repository.commit()
    assert "make test has not passed" in refusal(repository)


def test_tests_that_did_not_end_leave_the_tree_untested(repository: Repository) -> None:
    repository.tested("begin")
    assert "make test has not passed" in refusal(repository)


def test_tests_of_what_is_not_committed_do_not_count(repository: Repository) -> None:
    repository.write("docs/page.md", "other\n")
    repository.tested("begin")
    repository.git("checkout", "--quiet", "docs/page.md")
    repository.tested("end")
    assert "make test has not passed" in refusal(repository)


def test_a_tree_that_was_changed_during_its_tests_is_refused(repository: Repository) -> None:
    repository.tested("begin")
    repository.write("docs/page.md", "other\n")
    repository.commit()
    repository.tested("end")
    assert "make test has not passed" in refusal(repository)


def test_a_changelog_that_cannot_be_made_leaves_all_as_it_was(repository: Repository) -> None:
    (repository.root.parent / "changelog-fails").touch()
    assert "antsibull-changelog release failed" in refusal(repository)


def test_a_package_that_the_importer_warns_of_leaves_all_as_it_was(repository: Repository) -> None:
    repository.write("tools/importer.py", "import sys\nsys.exit('WARNING: bad')\n")
    repository.commit()
    repository.tested("begin")
    repository.tested("end")
    said = refusal(repository)
    assert "WARNING: bad" in said
    assert "tools/importer.py" in said
