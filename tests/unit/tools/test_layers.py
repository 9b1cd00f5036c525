"""Packages of module_utils import only from packages that precede them in ORDER."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODULE_UTILS = ROOT / "plugins/module_utils"
COLLECTION = "ansible_collections.armfleet.vfio.plugins.module_utils"
# As in the map of CONTRIBUTING.md.
ORDER = (
    "_errors",
    "_text",
    "_ansible_module",
    "_model",
    "_system",
    "_discovery",
    "_in_use",
    "_argspec",
    "_boot",
    "_apply",
    "_report",
)


def sources(directory: Path) -> dict[str, str]:
    """Return the files of a directory and its packages, by dotted name."""
    return {
        ".".join(path.relative_to(directory).with_suffix("").parts): path.read_text()
        for path in sorted(directory.rglob("*.py"))
    }


def imports(name: str, source: str) -> Iterator[str]:
    """Yield the dotted names in module_utils that a file imports, also lazily or for types."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            assert not any(COLLECTION in alias.name for alias in node.names), name
        if not isinstance(node, ast.ImportFrom):
            continue
        module = node.module or ""
        if node.level:
            package = name.split(".")[: -node.level]
            of = ".".join([*package, *filter(None, [module])])
        elif module.startswith(COLLECTION):
            of = module[len(COLLECTION) + 1 :]
        else:
            continue
        for alias in node.names:
            yield f"{of}.{alias.name}".strip(".")


def payload(module: str) -> set[str]:
    """Return the files of module_utils that ansible-core sends with a module.

    It follows every import that it finds in the source, also those for types and in functions.
    """
    files = sources(MODULE_UTILS)
    waiting = [f"modules.{module}"]
    text = {waiting[0]: (ROOT / f"plugins/modules/{module}.py").read_text(), **files}
    sent: set[str] = set()
    while waiting:
        name = waiting.pop()
        for other in imports(name, text[name]):
            path = other if other in files else other.rpartition(".")[0]
            if path in files and path not in sent:
                sent.add(path)
                waiting.append(path)
    return sent


def upward(files: Mapping[str, str]) -> list[str]:
    """Return the imports that violate ORDER."""
    return [
        f"{name} imports {other}"
        for name, source in files.items()
        for other in imports(name, source)
        if ORDER.index(other.split(".")[0]) > ORDER.index(name.split(".")[0])
    ]


def test_no_package_imports_from_one_that_comes_later() -> None:
    files = sources(MODULE_UTILS)
    assert {name.split(".")[0] for name in files} == set(ORDER)
    assert upward(files) == []


@pytest.mark.parametrize(
    "line",
    [
        "from .._apply.reconcile import reconcile",
        "from .._apply import reconcile",
        f"from {COLLECTION}._report.results import result",
        f"from {COLLECTION} import _report",
        "def lazily():\n    from .._boot.initramfs import detect",
        "if TYPE_CHECKING:\n    from .._boot import initramfs",
    ],
)
def test_an_upward_import_is_found(line: str) -> None:
    assert len(upward({"_system.files": line})) == 1


def test_the_payload_of_device_info_has_nothing_of_the_write_path() -> None:
    sent = payload("device_info")
    assert "_report.inspection" in sent
    # What a refusal of a trial is made by, the names of links, and what keeps an answer.
    of_apply = {name for name in sent if name.startswith("_apply")}
    assert of_apply == {
        *("_apply.readiness", "_apply.symlinks"),
        *("_apply.host_lock", "_apply.last_answer"),
    }
    assert not sent & {"_boot.boot_files", "_boot.rollout_backup", "_report.results"}


def test_packages_use_relative_imports() -> None:
    files = sources(MODULE_UTILS)
    assert [name for name, source in files.items() if COLLECTION in source] == []


def test_each_file_says_what_it_is_for() -> None:
    for name, source in sources(MODULE_UTILS).items():
        docstring = ast.get_docstring(ast.parse(source))
        assert docstring, name
        assert docstring.partition("\n\n")[0].endswith("."), name


def test_a_host_without_changes_is_sent_little() -> None:
    assert payload("last_answer") == {
        *("_ansible_module", "_errors", "_text"),
        "_model.node_access",
        *("_system.file_reads", "_system.reads", "_system.sysfs"),
        *("_apply.host_lock", "_apply.last_answer"),
    }
    assert len(payload("host_policy")) > 100
