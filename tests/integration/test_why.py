"""Why a device is bound to its driver, and whether the forecast of the next boot is right."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import calls
from tests.harness.guests import released
from tests.harness.playbook import play, task_play
from tests.harness.sysfs import read_machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.guest import Guest

pytestmark = pytest.mark.nightly

LISTED = [{"dt_path": f"/soc/ring@b10{number}000", "policy": "vfio"} for number in (1, 2, 3)]
RULES = "/etc/udev/rules.d/70-armfleet-vfio.rules"
MODPROBE = "/etc/modprobe.d/armfleet-vfio.conf"
MODULES_LOAD = "/etc/modules-load.d/armfleet-vfio.conf"
BLACKLIST = "/etc/modprobe.d/why.conf"
LOADED = "/etc/modules-load.d/why.conf"
EARLY = "/etc/udev/rules.d/60-why.rules"
LATE = "/etc/udev/rules.d/80-why.rules"

_BIND_BY_HAND = """
    cd /sys/bus/platform/devices/b000000.crypto
    echo acme-ring > driver_override
    echo b000000.crypto > /sys/bus/platform/drivers/acme-ring/bind
    echo > driver_override
"""

# The GOTO of the first rules file skips a rule that would set an override for every ring.
_WRITE_FILES = rf"""
    printf '# Not at boot.\nblacklist acme\n' > {BLACKLIST}
    echo acme > {LOADED}
    cat > {EARLY} << 'END'
KERNEL=="b101000.ring", ACTION=="add", ATTR{{driver_override}}="replaced"
KERNEL=="b102000.ring", ATTR{{driver_override}}="again_on_bind"
SUBSYSTEM=="platform", GOTO="why_end"
KERNEL=="*.ring", ATTR{{driver_override}}="jumped_over"
LABEL="why_end"
END
    cat > {LATE} << 'END'
KERNEL=="b103000.ring", ACTION=="add", ATTR{{driver_override}}="late"
KERNEL=="b003000.plain", ATTR{{driver_override}}="nobody"
END
"""

_DAMAGE = f"""
    sed -i 's/driver_override/driver_overrid/' {RULES}
    chown nobody:nogroup {RULES}
    chmod 0777 {MODPROBE}
    mv {MODULES_LOAD} /root/elsewhere
    ln -s /root/elsewhere {MODULES_LOAD}
    chown nobody /etc/modules-load.d
"""
_STATUS = (
    f"cat {RULES} {MODPROBE} {MODULES_LOAD}; stat -c '%n %F %a %U %G' /etc/*/*armfleet* {RULES}"
)

_PYTHON_OF_NOBODY = """\
#!/bin/sh
exec setpriv --reuid nobody --regid nogroup --clear-groups /usr/bin/python3 "$@"
"""
_NEW_KERNEL = "echo kernel/fs/x.ko: > modules.dep; echo kernel/fs/y.ko > modules.builtin"

_TIDY_UP = f"""
    rm {BLACKLIST} {LOADED} {EARLY} {LATE}
    udevadm control --reload
    cd /sys/bus/platform/devices
    for ring in b102000.ring b103000.ring; do echo vfio-platform > $ring/driver_override; done
    echo > b003000.plain/driver_override
    modprobe acme
"""

APPLY = task_play("armfleet.vfio.host_policy", {"devices": LISTED, "reset_required": False})


@pytest.fixture(autouse=True, scope="module")
def _from_nothing_to_nothing(guest: Guest, inventory: Path) -> Iterator[None]:
    with released(guest, inventory):
        assert play(inventory, APPLY).code == 0
        yield
        guest.run(_TIDY_UP)


def whole_info(inventory: Path, **variables: str) -> tuple[dict[str, Any], str]:
    """Return what device_info returns, and the output on one line."""
    run = play(
        inventory, task_play("armfleet.vfio.device_info", {"nulls": True}), variables=variables
    )
    return run.of("armfleet.vfio.device_info"), " ".join(run.output.split())


def info(inventory: Path) -> dict[str, dict[str, Any]]:
    """Return the results of device_info by the names of the devices."""
    return {device["name"]: device for device in calls.info(inventory)}


def drift(inventory: Path, tmp_path: Path) -> tuple[int, dict[str, Any]]:
    """Run the drift playbook; return its exit code and what it wrote about the guest."""
    file = tmp_path / "drift.jsonl"
    run = play(inventory, "armfleet.vfio.drift", variables={"drift_file": str(file)})
    (line,) = file.read_text().splitlines()
    state: dict[str, Any] = json.loads(line)
    return run.code, state


def test_boot_files_that_were_damaged_drift_until_the_list_is_applied_again(
    guest: Guest, inventory: Path, tmp_path: Path
) -> None:
    sound = guest.run(_STATUS).stdout
    guest.run(_DAMAGE)
    code, state = drift(inventory, tmp_path)
    assert (code, state["state"], state["devices"]) == (2, "drift", [])
    owner, content, mode, kind, directory = state["boot_files"]
    assert owner == f"{RULES} is nobody:nogroup mode 0644, but must be root:root mode 0644"
    assert content.startswith(f"{RULES} differs from the last-applied configuration from line ")
    assert mode == f"{MODPROBE} is root:root mode 0777, but must be root:root mode 0644"
    leads = f"{MODULES_LOAD} is a symbolic link to /root/elsewhere"
    assert kind == f"{leads}, but must be a regular file"
    assert directory.startswith("/etc/modules-load.d is nobody:root mode 0755, so users other")
    checked = play(inventory, APPLY, "--check", "--diff")
    assert set(checked.changed.values()) == {1}
    for sentence in (owner, mode, kind):
        assert f"-{sentence}" in checked.output
    assert guest.run(_STATUS).stdout != sound
    applied = play(inventory, APPLY)
    assert directory in " ".join(applied.output.split())
    done = applied.of("armfleet.vfio.host_policy")
    assert {file["path"] for file in done["boot_files"] if file["changed"]} == {
        *(RULES, MODPROBE, MODULES_LOAD)
    }
    guest.run("chown root:root /etc/modules-load.d")
    assert guest.run(_STATUS).stdout == sound
    assert drift(inventory, tmp_path)[0] == 0


def test_each_device_is_told_with_why_it_has_its_driver(guest: Guest, inventory: Path) -> None:
    guest.run(_BIND_BY_HAND)
    devices = info(inventory)
    expected = {
        "b101000.ring": "override",
        "b000000.crypto": "manual",
        "b002000.dma": "compatible",
        "gpio-keys": "compatible",
        "9010000.pl031": "amba",
        "reg-dummy": "name",
        "9050000.smmuv3": "unknown",
    }
    assert {name: devices[name]["bound_by"]["kind"] for name in expected} == expected
    # The first compatible of the device is acme,dma-v2.
    assert devices["b002000.dma"]["bound_by"]["message"] == (
        "the module acme claims its compatible acme,dma"
    )
    assert "the last-applied configuration sets" in devices["b101000.ring"]["bound_by"]["message"]
    drifting = {name for name, device in devices.items() if device["drift"]}
    assert drifting == {"b000000.crypto"}


def test_another_user_is_told_the_same_as_root_or_that_it_is_not_known(
    guest: Guest, inventory: Path
) -> None:
    guest.run("cat > /root/a-python; chmod 755 /root/a-python", input=_PYTHON_OF_NOBODY)
    of_root, output = whole_info(inventory)
    assert "does not run as root" not in output
    of_nobody, output = whole_info(inventory, ansible_python_interpreter="/root/a-python")
    unknown = [device["name"] for device in of_nobody["devices"] if device["in_use_by"] is None]
    assert set(unknown) >= {"b101000.ring", "b102000.ring", "b103000.ring"}
    assert "does not run as root" in output
    assert unknown[0] in output
    known = {device["name"]: device for device in of_root["devices"]}
    for device in of_nobody["devices"]:
        whole = known[device["name"]]
        for key in ("in_use_by", "candidate"):
            if device[key] is None:
                device[key] = whole[key]
        # A use that is unknown is no reason.
        assert all(reason in whole["why_not"] for reason in device["why_not"])
        device["why_not"] = whole["why_not"]
    assert of_nobody == of_root


def test_modules_that_are_gone_make_the_devices_that_need_them_drift(
    guest: Guest, inventory: Path
) -> None:
    release = guest.run("uname -r").stdout.strip()
    home = f"/lib/modules/{release}"
    guest.run(f"mv {home} /root/away; mkdir /lib/modules/9.9; cd /lib/modules/9.9; {_NEW_KERNEL}")
    try:
        whole, _output = whole_info(inventory)
    finally:
        guest.run(f"mv /root/away {home}; rm -r /lib/modules/9.9")
    assert whole["kernels"] == [
        {
            "release": "9.9",
            "running": False,
            "new": True,
            "missing": ["vfio_platform"],
            "note": None,
        }
    ]
    of_rings = {device["name"]: device["drift"] for device in whole["devices"] if device["desired"]}
    assert set(of_rings) == {"b101000.ring", "b102000.ring", "b103000.ring"}
    for now, new in of_rings.values():
        assert f"no module of the running kernel ({release}) can be loaded: {home}/" in now
        assert new.startswith("kernel 9.9, installed since the last boot, has no module vfio")
    assert not any(device["drift"] for name, device in info(inventory).items() if name in of_rings)


OVERRIDDEN = {
    "b101000.ring": ("vfio-platform", "vfio-platform"),
    "b102000.ring": ("vfio-platform", "again_on_bind"),
    "b103000.ring": ("vfio-platform", "late"),
    "b003000.plain": (None, "nobody"),
}


class Story:
    """What later tests compare with."""

    predicted: dict[str, tuple[str | None, str | None]]


def test_the_next_boot_is_told_with_the_lines_that_decide_it(guest: Guest, inventory: Path) -> None:
    guest.run(_WRITE_FILES)
    devices = info(inventory)
    ring = devices["b100000.ring"]
    assert ring["next_boot"]["driver"] is None
    assert f"{BLACKLIST}:2 has 'blacklist acme'" in ring["next_boot"]["reason"]
    assert ring["module_configuration"] == [
        {"location": f"{BLACKLIST}:2", "text": "blacklist acme"},
        {"location": f"{LOADED}:1", "text": "acme"},
    ]
    assert [devices[name]["foreign_rules"] for name in ("b101000.ring", "b104000.ring")] == [
        [{"location": f"{EARLY}:1", "driver_override": "replaced"}],
        [],
    ]
    Story.predicted = {
        f"{device['bus']}/{name}": (
            device["next_boot"]["driver"],
            device["next_boot"]["driver_override"],
        )
        for name, device in devices.items()
        if device["next_boot"]["known"]
    }
    unknown = {name for name, device in devices.items() if not device["next_boot"]["known"]}
    # The kernel does not show that a device without a firmware description never had a driver.
    assert {name for name in unknown if devices[name]["dt_path"]} == {"b000000.crypto"}
    assert {name for name in unknown if devices[name]["driver"]} == {"b000000.crypto"}
    assert {name: Story.predicted[f"platform/{name}"] for name in OVERRIDDEN} == OVERRIDDEN


def test_the_boot_comes_as_it_was_told(guest: Guest, inventory: Path) -> None:
    guest.reboot()
    running = read_machine(guest).bindings
    known = Story.predicted.keys() & running.keys()
    assert {name: running[name] for name in known} == {
        name: Story.predicted[name] for name in known
    }
    devices = info(inventory)
    assert "blacklist acme" in devices["b100000.ring"]["next_boot"]["reason"]
    assert {name for name, device in devices.items() if device["drift"]} == {
        "b102000.ring",
        "b103000.ring",
    }
