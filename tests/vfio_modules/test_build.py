# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The makefile of the DKMS package builds what dkms.conf names, for the kernel of the guest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.guest import commands
from tests.guest.debian_kernel import debian_kernel
from tests.guest.modules import STOCK_OPTIONS
from tests.guest.small_kernel import MAKE

ROLE = Path(__file__).parents[2] / "roles/vfio_modules"
VARIABLES = yaml.safe_load((ROLE / "vars/main.yml").read_text())
DRIVERS, CORE = VARIABLES["vfio_modules_drivers"], VARIABLES["vfio_modules_core"]


@pytest.mark.parametrize(
    ("setting", "modules"),
    [
        pytest.param((), DRIVERS, marks=pytest.mark.nightly),
        (("NOIOMMU=y",), DRIVERS + CORE),
    ],
    ids=["", "noiommu"],
)
def test_each_module_of_dkms_conf_is_built(
    tmp_path: Path, setting: tuple[str, ...], modules: list[dict[str, str]]
) -> None:
    kernel = debian_kernel().ensure()
    shutil.copytree(kernel / "vfio", tmp_path / "vfio")
    shutil.copy(ROLE / "files/Makefile", tmp_path)
    words = [*MAKE, f"KERNEL_HEADERS={kernel / 'headers'}", *STOCK_OPTIONS, *setting, "modules"]
    commands.call(words, cwd=tmp_path, log=tmp_path / "make.log")
    built = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.ko")}
    assert built == {f"{module['location']}/{module['name']}.ko" for module in modules}
    if setting:
        assert "enable_unsafe_noiommu_mode" in modinfo(tmp_path / "vfio/vfio.ko", "parm")
        for module in CORE:
            (original,) = kernel.glob(f"tree/lib/modules/*/kernel/drivers/*/{module['name']}.ko*")
            built_module = tmp_path / module["location"] / f"{module['name']}.ko"
            # Otherwise DKMS would not replace it.
            assert modinfo(built_module, "srcversion") != modinfo(original, "srcversion")
            assert modinfo(built_module, "vermagic") == modinfo(original, "vermagic")


def modinfo(module: Path, field: str) -> str:
    words = ["/usr/sbin/modinfo", "--field", field, module]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
