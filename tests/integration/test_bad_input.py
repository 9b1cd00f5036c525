"""Bad input: one clear sentence, nothing changed, no traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.playbook import play, task_play
from tests.harness.sysfs import files, read_machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.guest import Guest

SMALL = {
    "driver_override": {"driver": "vfio-platform"},
    "no_autobind": {},
    "vfio_binding": {},
}


def entry(policy: str = "vfio", **selector: Any) -> dict[str, Any]:
    return dict(selector, policy=policy)


def pinned(driver: str, path: str = "/soc/ring@b100000") -> dict[str, Any]:
    return entry("driver", dt_path=path, driver=driver)


REFUSED: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "no such path": ([entry(dt_path="/soc/nothing@0")], ["no such node", "/proc/device-tree/soc"]),
    "disabled": ([entry(dt_path="/soc/off@b006000")], ["status is 'disabled'"]),
    "no compatible": ([entry(dt_path="/soc/nocompat@b007000")], ["has no compatible"]),
    "parent is no bus": (
        [entry(dt_path="/soc/crypto@b000000/child@0")],
        ["its parent /soc/crypto@b000000 is no bus"],
    ),
    "no such alias": ([entry(dt_path="ethernet9")], ["no such alias", "'/'"]),
    "compatible without a match": (
        [entry(compatible="acme,nowhere")],
        ["matches no device", "required: false"],
    ),
    "expect off by one": (
        [entry(compatible="acme,dma", expect=3)],
        ["matches 2 devices", "expect says 3", "/soc/dma@b001000", "/soc/dma@b002000"],
    ),
    "two policies for one device": (
        [entry(compatible="acme,dma"), entry("no_autobind", dt_path="/soc/dma@b001000")],
        ["Two entries claim /soc/dma@b001000", "compatible 'acme,dma'", "no_autobind"],
    ),
    "relative path": ([entry(dt_path="./soc/crypto@b000000")], ["'.' and '..' are not allowed"]),
    "path that goes up": ([entry(dt_path="/soc/../crypto")], ["'.' and '..' are not allowed"]),
    "driver not loaded": (
        [pinned("gpio-keys-polled-nowhere")],
        ["does not exist here", "ls /sys/bus/platform/drivers"],
    ),
    "driver of another bus": (
        [pinned("pl061_gpio")],
        ["Driver pl061_gpio is on the amba bus", "on the platform bus"],
    ),
    "no IOMMU": (
        [entry(dt_path="/soc/plain@b003000")],
        ["no IOMMU group", "no iommus property", "EINVAL", "unsafe_noiommu: true"],
    ),
}
SPECIAL = ["a\nb", 'a"b', "a'b", "a*", "a|b", "a$b", "a%b", ""]
BAD_VALUES = {
    "name": [*SPECIAL, "a/b", ".."],
    "compatible": SPECIAL,
    "dt_path": ["/soc/" + value for value in SPECIAL],
}


@pytest.fixture(autouse=True)
def _nothing_changes(guest: Guest) -> Iterator[None]:
    before = read_machine(guest).bindings, files(guest)
    yield
    assert (read_machine(guest).bindings, files(guest)) == before


def refused(inventory: Path, action: str, options: dict[str, Any], *arguments: str) -> str:
    """The module's own message; fails if the call went well or showed a traceback."""
    run = play(inventory, task_play(f"armfleet.vfio.{action}", options), *arguments)
    assert run.code == 2, run.output
    assert "Traceback" not in run.output
    (task,) = run.tasks
    assert task.status == "failed"
    message = task.result["msg"]
    assert isinstance(message, str)
    return message


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.replace(" ", "-"))
def test_host_policy_refuses(inventory: Path, case: str) -> None:
    devices, sentences = REFUSED[case]
    message = refused(inventory, "host_policy", {"devices": devices})
    for sentence in sentences:
        assert sentence in message
    assert refused(inventory, "host_policy", {"devices": devices}, "--check") == message


def test_a_pci_child_is_said_to_be_one(guest: Guest, inventory: Path) -> None:
    path = guest.run(
        "cd /sys/bus/pci/devices && for d in *; do readlink $d/of_node; done | grep -m1 devicetree"
    ).stdout.strip()
    path = path.partition("/devicetree/base")[2]
    message = refused(inventory, "host_policy", {"devices": [entry(dt_path=path)]})
    assert "on the pci bus" in message


def test_every_problem_is_named_at_once(inventory: Path) -> None:
    devices = [entry(dt_path="/soc/nothing@0"), entry(compatible="acme,dma", expect=7)]
    message = refused(inventory, "host_policy", {"devices": devices})
    assert "no such node" in message
    assert "expect says 7" in message


@pytest.mark.parametrize("module", SMALL)
def test_the_small_modules_want_a_device(inventory: Path, module: str) -> None:
    message = refused(inventory, module, dict(SMALL[module], devices=[]))
    assert message == "devices is empty; name at least one device"


@pytest.mark.parametrize("kind", BAD_VALUES)
def test_values_with_characters_of_their_own_are_refused(inventory: Path, kind: str) -> None:
    values = BAD_VALUES[kind]
    devices = [entry(**{kind: value}) for value in values]
    sentences = refused(inventory, "host_policy", {"devices": devices}).splitlines()
    assert len(sentences) == len(values)
    for value, sentence in zip(values, sentences, strict=True):
        assert sentence.startswith(f"{kind} {value!r} ")


def test_a_driver_that_is_not_loaded_is_said_to_be_a_module(guest: Guest, inventory: Path) -> None:
    guest.run("modprobe -r gpio_keys")
    try:
        message = refused(inventory, "host_policy", {"devices": [pinned("gpio_keys")]})
        assert "is not loaded" in message
        assert "modprobe gpio_keys" in message
    finally:
        guest.run("modprobe gpio_keys")


def test_a_kernel_without_vfio_platform_is_said_to_lack_it(guest: Guest, inventory: Path) -> None:
    guest.run("modprobe -r vfio_platform; mv /lib/modules /lib/modules.away")
    try:
        options = {"devices": [entry(dt_path="/soc/crypto@b000000")]}
        message = refused(inventory, "host_policy", options)
        assert "has no vfio-platform" in message
        assert "CONFIG_VFIO_PLATFORM" in message
    finally:
        guest.run("mv /lib/modules.away /lib/modules")


def test_a_device_without_a_reset_function_is_put_back(guest: Guest, inventory: Path) -> None:
    # The first of them has a reset function and is bound by then; it has to go back too.
    devices = [entry(dt_path="ethernet0"), entry(dt_path="/soc/dma@b001000")]
    options = {"devices": devices, "reset_required": True}
    message = refused(inventory, "host_policy", options)
    assert "ENOENT" in message
    assert "no reset function (acme,dma)" in message
    assert "reset_required: false" in message
    assert "put back" in message
    assert guest.run("test -e /sys/module/vfio_platform", check=False).returncode == 1


def test_sys_read_only(guest: Guest, inventory: Path) -> None:
    guest.run("mount -o remount,ro /sys")
    try:
        options = {"devices": [entry(dt_path="/soc/crypto@b000000")], "persistent": False}
        message = refused(inventory, "host_policy", options)
        assert "/sys is mounted read-only" in message
    finally:
        guest.run("mount -o remount,rw /sys")


def test_not_root(guest: Guest, inventory: Path) -> None:
    wrapper = '#!/bin/sh\nexec setpriv --reuid=65534 --clear-groups env HOME=/tmp python3 "$@"\n'
    guest.run(
        "cat > /root/nobody-python && chmod 755 /root/nobody-python",
        input=wrapper,
    )
    options = {"devices": [entry(dt_path="/soc/crypto@b000000")]}
    message = refused(
        inventory,
        "host_policy",
        options,
        "-e",
        "ansible_python_interpreter=/root/nobody-python",
        "-e",
        "ansible_remote_tmp=/tmp/nobody",
    )
    assert "needs root" in message
    assert "become: true" in message


def test_a_python_that_is_too_old_for_ansible(guest: Guest, inventory: Path) -> None:
    guest.run(
        "cat > /root/old-python && chmod 755 /root/old-python",
        input="#!/bin/sh\ncat > /dev/null\necho 'SyntaxError: invalid syntax' >&2\nexit 1\n",
    )
    message = refused(
        inventory,
        "host_policy",
        {"devices": [entry(dt_path="/soc/crypto@b000000")]},
        "-e",
        "ansible_python_interpreter=/root/old-python",
    )
    assert "Python is too old" in message
    assert "ansible_python_interpreter" in message
