# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""update_initramfs.py rebuilds an image only if the applied list needs the new modules in it."""

from __future__ import annotations

import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "roles/vfio_modules/files/update_initramfs.py"
RELEASE = "6.12.117+deb13-arm64"
HOOK = "etc/initramfs-tools/hooks/armfleet-vfio"
DRACUT = "etc/dracut.conf.d/armfleet-vfio.conf"
IMAGE = f"boot/initrd.img-{RELEASE}"
CALLED = {HOOK: [f"update-initramfs -u -k {RELEASE}"], DRACUT: ["dracut --force {image} {release}"]}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the programs by ones that only record how they are called, in this file."""
    record, programs = tmp_path / "record", tmp_path / "bin"
    programs.mkdir()
    record.touch()
    for name in ("depmod", "update-initramfs", "dracut"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {record}\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return record


def update(root: Path, monkeypatch: pytest.MonkeyPatch, *files: str, release: str = RELEASE) -> int:
    specification = spec_from_file_location("update_initramfs", PROGRAM)
    assert specification
    assert specification.loader
    program = module_from_spec(specification)
    specification.loader.exec_module(program)
    monkeypatch.setattr(program, "_ROOT", root)
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    code: int = program.main([release])
    return code


@pytest.mark.parametrize("configuration", [HOOK, DRACUT])
def test_an_existing_image_is_rebuilt(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: str
) -> None:
    assert update(tmp_path, monkeypatch, configuration, IMAGE) == 0
    index, rebuild = commands.read_text().splitlines()
    assert index == f"depmod {RELEASE}"
    (expected,) = CALLED[configuration]
    assert rebuild == expected.format(image=tmp_path / IMAGE, release=RELEASE)


# Without the first, no list needs the modules there; without the second, the package of the kernel
# makes the image afterwards.
@pytest.mark.parametrize("files", [(IMAGE,), (HOOK,), (DRACUT,), ()])
def test_nothing_is_called_otherwise(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...]
) -> None:
    assert update(tmp_path, monkeypatch, *files) == 0
    assert commands.read_text() == ""


@pytest.mark.parametrize("release", ["--all", "../6.12", "6.12 all", ""])
def test_a_name_that_is_no_release_is_refused(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    assert update(tmp_path, monkeypatch, HOOK, IMAGE, release=release) == 1
    assert commands.read_text() == ""
