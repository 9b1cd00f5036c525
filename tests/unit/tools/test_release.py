"""A release requires a clean, tested tree; a refused one changes nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from checkout import ROOT, Checkout

PAGE = "Install armfleet-vfio-0.1.0.tar.gz.\n"
# Replacements for programs that take minutes.
ANTSIBULL_CHANGELOG = """\
#!/bin/sh
set -e
test ! -e ../changelog-fails
cat changelogs/fragments/* >CHANGELOG.md
rm changelogs/fragments/*
"""
NOX = """\
#!/bin/sh
set -e
test "$*" = "--sessions build-import-check"
mkdir -p build/package
cp galaxy.yml build/package/armfleet-vfio-1.0.0.tar.gz
if test -e ../importer-warns; then echo "WARNING: bad"; exit 1; fi
"""


# make test passes unless the file tests-fail exists beside the checkout.
PARTS = """\
def parts(depth: str) -> list[Part]:
    return [_part("tests", "test", "!", "-e", "../../../../../tests-fail", environment="check")]
"""


class Repository(Checkout):
    """A checkout in which make test has passed."""

    def create(self) -> None:
        super().create()
        shutil.copy(ROOT / "tools/release.py", self.root / "tools")
        self.set_parts(PARTS)
        for subdirectory in ("changelogs/fragments", "docs"):
            (self.root / subdirectory).mkdir(parents=True)
        self.write("galaxy.yml", "namespace: armfleet\nname: vfio\nversion: 0.1.0\n")
        self.write("changelogs/changelog.yaml", "releases: {0.1.0: {}}\n")
        self.write("changelogs/fragments/new.yml", "minor_changes: [Something new.]\n")
        self.write("docs/page.md", PAGE)
        for name, text in (("antsibull-changelog", ANTSIBULL_CHANGELOG), ("nox", NOX)):
            (self.programs / name).write_text(text)
            (self.programs / name).chmod(0o755)
        self.commit()
        assert self.suite("test").returncode == 0

    def release(self, version: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", "tools/release.py", version)

    def state(self) -> tuple[str, ...]:
        words = (("rev-parse", "HEAD"), ("status", "--porcelain"), ("tag", "--list"))
        return tuple(self.git(*command) for command in words)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("original")
    Repository(directory).create()
    return directory


@pytest.fixture
def repository(original: Path, tmp_path: Path) -> Repository:
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return Repository(tmp_path)


def refusal(repository: Repository, version: str = "1.0.0") -> str:
    """Return the messages of a refused release; assert that it changed nothing."""
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
    assert "is not a version" in refusal(repository, version)


def test_a_changelog_without_news_is_refused(repository: Repository) -> None:
    repository.git("rm", "--quiet", "changelogs/fragments/new.yml")
    repository.commit()
    assert "changelogs/fragments is empty" in refusal(repository)


def test_a_tree_that_was_changed_after_its_tests_is_refused(repository: Repository) -> None:
    repository.write("docs/page.md", "other\n")
    repository.commit()
    assert "make test has not passed" in refusal(repository)


def test_a_tree_that_fails_its_tests_is_refused_even_if_it_passed_them_before(
    repository: Repository,
) -> None:
    (repository.root.parent / "tests-fail").touch()
    assert repository.suite("test").returncode == 1
    assert "make test has not passed on this tree (tests)" in refusal(repository)


def test_tests_of_what_is_not_committed_do_not_count_for_the_commit(
    repository: Repository,
) -> None:
    page = repository.read("docs/page.md")
    repository.write("docs/page.md", "other\n")
    repository.commit()
    repository.write("docs/page.md", page)
    repository.suite("test")
    repository.git("checkout", "--quiet", "docs/page.md")
    assert "make test has not passed" in refusal(repository)


def test_a_tree_that_was_changed_during_its_tests_is_refused(repository: Repository) -> None:
    repository.set_parts(PARTS.replace('"test", "!", "-e"', '"touch", "../../../../docs/new.md"'))
    repository.commit()
    assert "the tree has changed" in repository.suite("test").stdout
    repository.commit()
    assert "make test has not passed" in refusal(repository)


def test_a_changelog_that_cannot_be_made_leaves_all_as_it_was(repository: Repository) -> None:
    (repository.root.parent / "changelog-fails").touch()
    assert "antsibull-changelog release failed" in refusal(repository)


def test_a_package_that_the_importer_warns_of_leaves_all_as_it_was(repository: Repository) -> None:
    (repository.root.parent / "importer-warns").touch()
    assert "nox --sessions build-import-check failed" in refusal(repository)
