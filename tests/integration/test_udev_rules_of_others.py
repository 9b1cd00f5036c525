"""What udev does to a device by generated rule files, and what the collection expects of it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.guests import unchanged
from tests.harness.udev_rule_files import Scratch, effective_file

if TYPE_CHECKING:
    from tests.guest import Guest

pytestmark = pytest.mark.nightly

COUNT = 300
SCRATCH = Scratch("platform", "b003000.plain", "plain@b003000", "acme,plain")
ROOT = Path(__file__).parents[2]
PACKAGE = "ansible_collections/armfleet/vfio/plugins/module_utils"

# Each file is the only foreign one that sets overrides, and each has an event of its own.
_COMPARE = f"""
import json, os, subprocess, sys
sys.path.insert(0, "/root/reader")
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import foreign_udev
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._discovery.devices import snapshot
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import Sysfs

path = "/etc/udev/rules.d/80-generated.rules"
home = os.path.realpath("/sys/bus/{SCRATCH.bus}/devices/{SCRATCH.name}")
sysfs, files = Sysfs(), Files()
(device,) = [
    device for device in snapshot(sysfs, Identity._fields)
    if (device.bus, device.name) == ("{SCRATCH.bus}", "{SCRATCH.name}")
]

def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

def clear():
    with open(home + "/driver_override", "w") as stream:
        stream.write("\\n")

results = []
for content in json.load(sys.stdin):
    with open(path, "w") as stream:
        stream.write(content)
    clear()
    known = foreign_udev.rules(files, RULES)
    rules = foreign_udev.of_device(sysfs, device, known, "add")
    run("udevadm", "control", "--reload")
    run("udevadm", "control", "--ping")
    run("udevadm", "trigger", "--action=add", "--settle", home)
    with open(home + "/driver_override") as stream:
        override = stream.read().rstrip("\\n")
    expected = [(rule.kind, rule.driver_override, rule.is_sure) for rule in rules]
    results.append((None if override == "(null)" else override, expected))
os.unlink(path)
clear()
run("udevadm", "control", "--reload")
run("udevadm", "trigger", "--action=add", "--settle", home)
json.dump(results, sys.stdout)
"""


def test_udev_does_what_is_expected_of_its_rules(guest: Guest, tmp_path: Path) -> None:
    archive = tmp_path / "reader.tar"
    archive.write_bytes(_reader())
    guest.put(archive, "/root/reader.tar")
    guest.run("mkdir /root/reader && tar -C /root/reader -xf /root/reader.tar")
    script = tmp_path / "compare.py"
    script.write_text(_COMPARE)
    guest.put(script, "/root/compare.py")
    contents = [effective_file(seed, SCRATCH) for seed in range(COUNT)]
    with unchanged(guest):
        answer = guest.run("python3 /root/compare.py", input=json.dumps(contents), timeout=1800)
    results = json.loads(answer.stdout)
    assert len(results) == COUNT
    differing = [
        (content, override, rules)
        for content, (override, rules) in zip(contents, results, strict=True)
        if override not in allowed(rules) and "any" not in allowed(rules)
    ]
    decided = sum(len(allowed(rules)) == 1 for _override, rules in results)
    changed = sum(override is not None for override, _rules in results)
    print(f"{COUNT} rule files: {changed} set an override, {decided} were decided before")
    assert not differing, "\n\n".join(map(str, differing))
    assert decided > COUNT // 2
    assert changed > COUNT // 4


def allowed(rules: list[Any]) -> set[str | None]:
    """Return the overrides that a device can have after these rules, ``any`` for any."""
    overrides: set[str | None] = {None}
    for kind, override, is_sure in rules:
        # The device has no driver.
        if kind != "override":
            continue
        value = "any" if override is None else override
        overrides = {value} if is_sure else {*overrides, value}
    return overrides


def _reader() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(
            ROOT / "plugins/module_utils",
            PACKAGE,
            filter=lambda member: None if "__pycache__" in member.name else member,
        )
    return stream.getvalue()
