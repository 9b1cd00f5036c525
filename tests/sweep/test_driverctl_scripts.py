# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What driverctl of two versions sets at boot is what the collection reads of its files."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import driverctl
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files
from tests.guest import commands
from tests.guest.artefacts import Artefact
from tests.guest.packages import download

# The oldest and the newest one of those that the guests have.
SUITES = {"bullseye": "0.111", "forky": "0.121"}
DEVICE = "platform-b000000.crypto"
FOLDERS = {
    "platform": "devices/platform",
    "amba": "devices/amba",
    "pci": "devices/pci0000:00",
    "fsl-mc": "devices/fsl-mc",
}
MODULES = ("vfio-platform", "vfio_pci", "acme")
# Loads one of these modules; what is not the name of one fails.
MODPROBE = f"""#!/bin/sh
for module in {" ".join(MODULES)}; do [ "$module" = "$2" ] && exit 0; done
exit 1
"""
UNTOUCHED = "(null)\n"


def _script(suite: str) -> str:
    artefact = Artefact(
        name=f"driverctl-{suite}",
        purpose=f"unpacking the driverctl of Debian {suite}",
        recipe=[suite, "driverctl"],
        make=partial(_unpack, suite),
    )
    return (artefact.ensure() / "driverctl").read_text()


def _unpack(suite: str, target: Path) -> None:
    log = target / "build.log"
    (package,) = download(["driverctl"], target, suite)
    commands.call(["dpkg-deb", "-x", package, target / "tree"], log=log)
    assert package.name.split("_")[1].startswith(SUITES[suite])
    (target / "tree/usr/sbin/driverctl").rename(target / "driverctl")
    commands.call(["rm", "-r", package, target / "tree"], log=log)


def _moved(script: str, root: Path) -> str:
    """Return the script for a machine below a directory, whose path it also has to cut off."""
    length = len(str(root))
    moved = script.replace("cut -c5-", f"cut -c{length + 5}-")
    moved = moved.replace("devpath:4", f"devpath:{length + 4}")
    for path in ("/sys/", "/etc/driverctl.d", "/sbin/modprobe"):
        moved = moved.replace(path, f"{root}{path}")
    return moved


def _add_device(root: Path, bus: str, name: str) -> Path:
    directory = root / "sys" / FOLDERS[bus] / name
    driver = root / "sys/bus" / bus / "drivers/native"
    for path in (directory, driver, root / "sys/bus" / bus / "devices", root / "sys/module"):
        path.mkdir(parents=True, exist_ok=True)
    (directory / "driver").symlink_to(driver)
    (directory / "driver_override").write_text(UNTOUCHED)
    (root / "sys/bus" / bus / "devices" / name).symlink_to(directory)
    return directory / "driver_override"


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(
    ("file", "content"),
    [
        *((DEVICE, text) for text in ("vfio-platform\n", "vfio-platform", "acme\n\n\n")),
        *((DEVICE, text) for text in ("none\n", "\n", "\n\n", "", "nosuch\n")),
        *((DEVICE, text) for text in ("vfio-platform\nnone\n", "# mine\nacme\n", "\nacme\n")),
        *((DEVICE, text) for text in ("acme \n", " acme\n", "acme\r\n", "a b\n", "\t\n")),
        (DEVICE, None),
        ("amba-9030000.pl061", "acme\n"),
        ("pci-0000:01:00.0", "acme\n"),
        ("platform-soc:a-b", "acme\n"),
        ("fsl-mc-dprc.2", "acme\n"),
        ("platform-b000000.crypto.bak", "acme\n"),
        ("platform-b000000.crypto~", "acme\n"),
    ],
)
def test_what_is_read_of_a_file_is_what_driverctl_sets(
    tmp_path: Path, suite: str, file: str, content: str | None
) -> None:
    script = tmp_path / "driverctl"
    script.write_text(_moved(_script(suite), tmp_path))
    (tmp_path / "sbin").mkdir()
    (tmp_path / "sbin/modprobe").write_text(MODPROBE)
    (tmp_path / "sbin/modprobe").chmod(0o755)
    device = driverctl.device_of(file.removesuffix(".bak").removesuffix("~"))
    assert device is not None
    override = _add_device(tmp_path, *device)
    stored = tmp_path / driverctl.DIRECTORY[1:] / file
    stored.parent.mkdir(parents=True)
    if content is None:
        (stored / "entry").mkdir(parents=True)
    else:
        stored.write_bytes(content.encode())
    # The rule of driverctl has the name of the device, and systemd passes %I to the script.
    instance = "-".join(device).replace("-", "/")
    environment = {key: value for key, value in os.environ.items() if key != "DEVPATH"}
    command = ["bash", str(script), "load-override", instance]
    subprocess.run(command, env=environment, capture_output=True, check=False)
    kept = {
        (entry.bus, entry.name): entry.driver_override
        for entry in driverctl.stored(Files(str(tmp_path)))
        if not entry.ignored
    }.get(device)
    # Whether there is such a module is asked of modprobe elsewhere.
    is_loadable = kept in ("", "none", *MODULES)
    expected = f"{kept}\n" if kept is not None and is_loadable else UNTOUCHED
    assert override.read_text() == expected
