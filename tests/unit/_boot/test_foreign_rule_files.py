"""udev reads rule files by their names; a file hides its namesakes in later directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.foreign_rule_files import read
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._system.systemd_conf import (
    systemd_version,
)

LINE = 'ENV{A}="1"\n'
SYSTEM = "/usr/lib/udev/rules.d/60-a.rules"
ADMIN = "/etc/udev/rules.d/60-a.rules"


def write(root: Path, path: str, content: str = LINE) -> Path:
    file = root / path[1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def paths(root: Path) -> list[str]:
    return [file.path for file in read(Files(str(root)), RULES)]


def test_files_come_by_their_names(tmp_path: Path) -> None:
    for path in (
        "/usr/lib/udev/rules.d/90-c.rules",
        "/etc/udev/rules.d/80-b.rules",
        "/usr/local/lib/udev/rules.d/85-x.rules",
        "/run/udev/rules.d/60-a.rules",
        "/lib/udev/rules.d/10-old.rules",
        RULES,
    ):
        write(tmp_path, path)
    files = read(Files(str(tmp_path)), RULES)
    assert [(file.path[-8:], file.is_before_ours) for file in files] == [
        ("ld.rules", True),
        ("-a.rules", True),
        ("-b.rules", False),
        ("-x.rules", False),
        ("-c.rules", False),
    ]


@pytest.mark.parametrize("path", ["/etc/udev/rules.d/.60-a.rules", "/etc/udev/rules.d/60-a.rules~"])
def test_files_with_other_names_are_not_read(tmp_path: Path, path: str) -> None:
    write(tmp_path, path)
    assert paths(tmp_path) == []


def test_the_first_directory_with_a_name_decides(tmp_path: Path) -> None:
    write(tmp_path, SYSTEM)
    assert paths(tmp_path) == [SYSTEM]
    write(tmp_path, "/run/udev/rules.d/60-a.rules")
    assert paths(tmp_path) == ["/run/udev/rules.d/60-a.rules"]
    write(tmp_path, ADMIN)
    assert paths(tmp_path) == [ADMIN]


LIBRARY = {
    247: "/lib/systemd/libsystemd-shared-247.so",
    252: "/usr/lib/aarch64-linux-gnu/systemd/libsystemd-shared-252.so",
    257: "/usr/lib/systemd/libsystemd-shared-257.4-1.fc42.so",
    262: "/usr/lib/aarch64-linux-gnu/systemd/libsystemd-shared-262.so",
}
ALWAYS, UP_TO_257 = {None, *LIBRARY}, {247, 252, 257}


@pytest.mark.parametrize(
    ("mask", "hiding"),
    [
        ("empty", ALWAYS),
        ("null", ALWAYS),
        ("dangling", UP_TO_257),
        ("loop", UP_TO_257),
        ("directory", UP_TO_257),
        ("link to a directory", UP_TO_257),
    ],
)
@pytest.mark.parametrize("version", [None, *LIBRARY])
def test_what_has_no_rules_hides_them_as_well(
    tmp_path: Path, mask: str, version: int | None, hiding: set[int | None]
) -> None:
    """As udev 247, 252, 257 and 262 do; where the version is not known, no rule is overlooked."""
    if version:
        write(tmp_path, LIBRARY[version], "")
    write(tmp_path, SYSTEM)
    file = write(tmp_path, ADMIN, "")
    if mask != "empty":
        file.unlink()
    if mask == "directory":
        file.mkdir()
    elif mask != "empty":
        target = {"null": "/dev/null", "dangling": "missing", "loop": file.name}.get(mask, ".")
        file.symlink_to(target)
    assert paths(tmp_path) == ([] if version in hiding else [SYSTEM])


def test_libraries_of_several_versions_tell_none(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    assert systemd_version(files) is None
    write(tmp_path, LIBRARY[247], "")
    assert systemd_version(files) == 247
    write(tmp_path, "/usr/lib/systemd/libsystemd-shared.so", "")
    write(tmp_path, "/usr/lib/systemd/libsystemd-shared-999.so.old", "")
    assert systemd_version(files) == 247
    write(tmp_path, LIBRARY[262], "")
    assert systemd_version(files) is None


def test_a_file_of_the_name_of_ours_is_hidden_by_it(tmp_path: Path) -> None:
    write(tmp_path, "/usr/lib/udev/rules.d/70-armfleet-vfio.rules")
    assert paths(tmp_path) == []
