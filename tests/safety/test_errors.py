"""Every row of docs/errors.md, provoked: one line with the device, the cause and a remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.harness.calls import refused
from tests.harness.messages import bare_options
from tests.harness.playbook import Run, TaskResult, play, task_play
from tests.harness.sysfs import read_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tests.guest import Guest

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"

RING, DMA, PLAIN = "/soc/ring@b100000", "/soc/sensor@b017000", "/soc/plain@b019000"
PAIR, STUCK = "/soc/pair@b015000", "/soc/stuck@b010000"
RESET = "/soc/ethernet@b018000"
NVME = "0000:00:01.0"
SMMU, CLOCK = "/smmuv3@9050000", "/clock-gate"
FOREIGN = "/etc/modprobe.d/armfleet-vfio.conf"
OTHERS = "/etc/modprobe.d/others.conf"
RULES = "/etc/udev/rules.d/99-others.rules"
JOURNAL, LOCK = "/run/armfleet-vfio/journal", "/run/armfleet-vfio/lock"

_WITHOUT_VFIO = "modprobe -r vfio_platform; modprobe -r vfio_iommu_type1; modprobe -r vfio; "
_BY_HAND = """
bind() {
    modprobe vfio-platform
    echo vfio-platform > /sys/bus/platform/devices/$1/driver_override
    echo $1 > /sys/bus/platform/devices/$1/driver/unbind || true
    echo $1 > /sys/bus/platform/drivers/vfio-platform/bind
}
release() {
    echo $1 > /sys/bus/platform/drivers/vfio-platform/unbind
    echo > /sys/bus/platform/devices/$1/driver_override
    echo $1 > /sys/bus/platform/drivers_probe
}
RESET=/sys/module/vfio_platform/parameters/reset_required
NOIOMMU=/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
modprobe vfio-platform reset_required=0
"""
# chattr(1) is not on every host; FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_IMMUTABLE_FL.
_CHANGE_ATTRIBUTE = """
python3 - <<'END'
import fcntl, os
descriptor = os.open("/etc/udev/rules.d", os.O_RDONLY)
flags = bytearray(8)
fcntl.ioctl(descriptor, 0x80086601, flags)
flags[0] = flags[0] %s 0x10
fcntl.ioctl(descriptor, 0x40086602, bytes(flags))
END
"""
_HELD = "sleep infinity < /dev/vfio/$(basename $(readlink %s/iommu_group)) > /dev/null 2>&1 &"
_RING_HOME = "/sys/bus/platform/devices/b100000.ring"
_PYTHON = "cat > /root/a-python <<'END'\n%s\nEND\nchmod 755 /root/a-python"


class Case(NamedTuple):
    """A call that provokes a row, and what its message contains besides the text of the row."""

    options: dict[str, Any]
    subject: str
    remedy: str
    module: str = "host_policy"
    # Shell commands that set up the cause on the host, and commands that undo it.
    before: str = ""
    after: str = ""
    python: str = ""


def on(path: str, policy: str = "no_autobind", **options: Any) -> dict[str, Any]:
    return {"devices": [{"dt_path": path, "policy": policy}], **options}


def on_pci(address: str, policy: str = "vfio", **keys: Any) -> dict[str, Any]:
    return {"devices": [{"pci_address": address, "policy": policy, **keys}]}


def pinned(driver: str) -> dict[str, Any]:
    return {"devices": [{"dt_path": RING, "policy": "driver", "driver": driver}]}


def for_board(board: str) -> dict[str, Any]:
    return {
        "devices": [{"name": "b100000.ring", "policy": "no_autobind", "when_board": board}],
    }


CASES = {
    "devices… is empty": Case({"devices": []}, "", "Give at least one device", "no_autobind"),
    "matches no device: the device tree has no such node": Case(
        on("/soc/nothing@0"), "/soc/nothing@0", "'ls /proc/device-tree/soc'"
    ),
    "its status is 'disabled'": Case(on("/soc/off@b01a000"), "/soc/off@b01a000", "required: false"),
    "has no compatible": Case(
        on("/soc/nocompat@b01b000"), "/soc/nocompat@b01b000", "required: false"
    ),
    "no device of a supported bus has it": Case(
        {"devices": [{"compatible": "acme,nowhere", "policy": "vfio"}]},
        "acme,nowhere",
        "required: false",
    ),
    "no device of a supported bus has it, but": Case(
        {"devices": [{"compatible": "acme,off", "policy": "vfio"}]},
        "/soc/off@b01a000: its node exists, but its status is 'disabled'",
        "required: false",
    ),
    "is the value of another selector": Case(
        {"devices": [{"acpi_hid": "LNRO0005:00", "policy": "no_autobind"}]},
        "acpi_hid 'LNRO0005:00'",
        "Use `name: 'LNRO0005:00'`",
    ),
    "firmware gives it to every device that it describes by a compatible": Case(
        {"devices": [{"acpi_hid": "PRP0001", "policy": "no_autobind"}]},
        "acpi_hid 'PRP0001'",
        "Use `compatible`",
    ),
    "acpi_uid requires the selector acpi_hid": Case(
        {"devices": [{"name": "b100000.ring", "acpi_uid": "0", "policy": "no_autobind"}]},
        "name 'b100000.ring'",
        "Omit `acpi_uid`",
    ),
    "acpi_uid … is not valid": Case(
        {"devices": [{"acpi_hid": "ACME0001", "acpi_uid": "*", "policy": "no_autobind"}]},
        "acpi_uid '*'",
        "such as '0'",
    ),
    "no device-tree alias": Case(on("ethernet9"), "'ethernet9'", "/proc/device-tree/aliases"),
    "its device is … on the … bus": Case(
        {"devices": [{"name": "virtio0", "policy": "no_autobind"}]},
        "virtio0 on the virtio bus",
        "this collection supports platform, AMBA",
    ),
    "is not the address of a PCI function": Case(
        on_pci("00:01.0"), "'00:01.0'", "such as '0000:01:00.0'"
    ),
    "pci_id … is not valid": Case(
        {"devices": [{"pci_id": "1b36", "policy": "vfio"}]}, "'1b36'", "as 'lspci -nn' prints them"
    ),
    "no PCI function has it": Case(on_pci("0000:09:00.0"), "'0000:09:00.0'", "required: false"),
    "is for a card with pci_id": Case(
        on_pci(NVME, pci_id="8086:10d3"), f"'{NVME}'", "correct the address, or pci_id"
    ),
    "is a PCI bridge": Case(on_pci("0000:00:00.0"), "0000:00:00.0", "Select those that are meant"),
    "has no virtual functions": Case(
        on_pci(NVME, policy="default", sriov_numvfs=1), NVME, "Omit `sriov_numvfs`"
    ),
    "requires policy default or driver": Case(
        on_pci(NVME, sriov_numvfs=1), "sriov_numvfs", "Omit `sriov_numvfs`"
    ),
    "is not the name of a VFIO driver": Case(
        on_pci(NVME, vfio_driver="nvme"), "'nvme'", "or omit `vfio_driver`"
    ),
    "is not a driver for": Case(
        on_pci(NVME, vfio_driver="vfio-platform"), NVME, "Correct or omit `vfio_driver`"
    ),
    "its parent … is not a bus": Case(on(PLAIN + "/child"), PLAIN, "required: false"),
    "matches … devices, but expect is": Case(
        {"devices": [{"compatible": "acme,stuck", "policy": "no_autobind", "expect": 3}]},
        f"{STUCK}, /soc/stuck@b011000",
        "Correct `expect`",
    ),
    "Two entries claim …": Case(
        {
            "devices": [
                {"dt_path": RING, "policy": "vfio"},
                {"name": "b100000.ring", "policy": "no_autobind"},
            ]
        },
        RING,
        "Keep one",
    ),
    "Tag … must identify one device": Case(
        {"devices": [{"compatible": "acme,stuck", "policy": "vfio", "tag": "left"}]},
        f"{STUCK} (platform device b010000.stuck), /soc/stuck@b011000",
        "Use a more specific selector",
    ),
    "when_board of … is …": Case(
        for_board("acme,*"),
        "name 'b100000.ring' is 'acme,*'",
        "without patterns",
    ),
    "the board is unknown": Case(
        for_board("linux,dummy-virt"),
        "name 'b100000.ring'",
        "without `when_board`",
        before="mount -t tmpfs none /sys/firmware/devicetree/base",
        after="umount /sys/firmware/devicetree/base",
    ),
    "exists and is not a symbolic link": Case(
        on(RING, "vfio", reset_required=False),
        "/dev/vfio/by-path/soc:ring@b100000",
        "Move it away",
        before="mkdir -p /dev/vfio/by-path; touch /dev/vfio/by-path/soc:ring@b100000",
        after="rm -r /dev/vfio/by-path",
    ),
    "is claimed by this list and by driverctl": Case(
        on(RING),
        "/etc/driverctl.d/platform-b100000.ring",
        "`driverctl: take_over`",
        before="mkdir -p /etc/driverctl.d; echo none > /etc/driverctl.d/platform-b100000.ring",
        after="rm /etc/driverctl.d/platform-b100000.ring",
    ),
    "has neither initramfs-tools nor dracut": Case(
        on(RING, initramfs="always"),
        "`initramfs` is always",
        "set `initramfs: auto` or `initramfs: never`",
        before="mv /usr/sbin/mkinitramfs /usr/bin/dracut /root",
        after="mv /root/mkinitramfs /usr/sbin; mv /root/dracut /usr/bin",
    ),
    "has a conflicting udev rule": Case(
        on(RING),
        f"{RULES}:1 sets vfio-platform",
        "Remove that rule",
        before=f'echo \'KERNEL=="*.ring", ATTR{{driver_override}}="vfio-platform"\' > {RULES}',
        after=f"rm {RULES}; udevadm control --reload",
    ),
    "is not loaded at boot": Case(
        on(RING, "vfio", reset_required=False),
        f"{OTHERS}:1 has 'blacklist vfio-platform'",
        "Remove that line or parameter",
        before=f"echo 'blacklist vfio-platform' > {OTHERS}",
        after=f"rm {OTHERS}",
    ),
    "so modprobe does not load …, which VFIO needs now": Case(
        on(RING, "vfio", reset_required=False, persistent=False),
        f"{OTHERS}:1 has 'install vfio-platform /bin/false'",
        "Remove that line or parameter",
        before=f"echo 'install vfio-platform /bin/false' > {OTHERS}",
        after=f"rm {OTHERS}",
    ),
    "but this list sets it to … at each boot": Case(
        on(RING, "vfio", reset_required=False),
        f"{OTHERS}:1 sets vfio_platform.reset_required=1",
        "Remove that setting",
        before=f"echo 'options vfio_platform reset_required=1' > {OTHERS}",
        after=f"rm {OTHERS}",
    ),
    "has no IOMMU group": Case(
        on(PLAIN, "vfio", reset_required=False), PLAIN, "`unsafe_noiommu: true`"
    ),
    "neither a compatible nor an ACPI node": Case(
        {
            "devices": [{"name": "alarmtimer.0.auto", "policy": "vfio"}],
            "persistent": False,
            "reset_required": False,
            "unsafe_noiommu": True,
        },
        "alarmtimer.0.auto",
        "Remove it from the list",
    ),
    "is bound to VFIO without an IOMMU": Case(
        on(PLAIN, "vfio", unsafe_noiommu=False),
        PLAIN,
        "Remove it from the list",
        before=_BY_HAND + "echo Y > $NOIOMMU; bind b019000.plain",
        after=_BY_HAND + "release b019000.plain; echo N > $NOIOMMU;" + _WITHOUT_VFIO,
    ),
    "has no reset function": Case(
        on(RING, "vfio", reset_required=True), RING, "`reset_required: false`"
    ),
    "and the next boot requires one": Case(
        on(RING, "vfio"),
        RING,
        "`reset_required: false`",
        before=_WITHOUT_VFIO + "modprobe vfio-platform reset_required=0",
        after=_WITHOUT_VFIO,
    ),
    "cannot be opened by VFIO": Case(
        on(PAIR, "vfio", reset_required=False),
        PAIR,
        "Add platform/b014000.pair to the list",
        # A device joins its group when it is probed, on a slow boot too late for the sibling.
        before=_BY_HAND
        + "echo b014000.pair > /sys/bus/platform/drivers/acme-ring/unbind; "
        + "echo b014000.pair > /sys/bus/platform/drivers/acme-ring/bind; "
        + "bind b015000.pair; release b015000.pair",
        after=_WITHOUT_VFIO,
    ),
    "This kernel … has no vfio-platform": Case(
        on(RING, "vfio", reset_required=False),
        "vfio-platform",
        "Use a kernel with CONFIG_VFIO_PLATFORM",
        before=_WITHOUT_VFIO + "mv /lib/modules /lib/modules.away; "
        "mkdir -p /lib/modules/$(uname -r); touch /lib/modules/$(uname -r)/modules.dep",
        after="rm -r /lib/modules; mv /lib/modules.away /lib/modules",
    ),
    "no module of the running kernel … can be loaded": Case(
        on(RING, "vfio", reset_required=False),
        "vfio-platform",
        "Install the package of that kernel",
        before=_WITHOUT_VFIO + "mv /lib/modules /lib/modules.away",
        after="mv /lib/modules.away /lib/modules",
    ),
    "cannot be set: vfio of this kernel": Case(
        on(PLAIN, "vfio", reset_required=False, unsafe_noiommu=True),
        "enable_unsafe_noiommu_mode",
        "Use a kernel with CONFIG_VFIO_NOIOMMU",
        # modinfo then prints the same as for a kernel without CONFIG_VFIO_NOIOMMU.
        before=_WITHOUT_VFIO
        + "vfio=$(modinfo -F filename vfio); cp $vfio /root/vfio.ko; "
        + "sed -i s/=enable_unsafe_noiommu_mode/=enable_unsafe_noiommu_nope/g $vfio",
        after="cp /root/vfio.ko $(modinfo -F filename vfio)",
    ),
    "Driver … does not exist here": Case(
        pinned("acme-nowhere"), RING, "'ls /sys/bus/platform/drivers'"
    ),
    "Driver … is on the … bus": Case(pinned("pl061_gpio"), RING, "'ls /sys/bus/platform/drivers'"),
    "where the VFIO driver is …": Case(
        {"devices": [{"dt_path": RING}], "driver": "vfio-pci"},
        RING,
        "Set `policy: vfio`",
        "driver_override",
    ),
    "on the … bus it is called …": Case(
        pinned("acme_stuck"), f"{RING} (platform device b100000.ring)", "Set `driver: acme-stuck`"
    ),
    "Driver … is not loaded": Case(
        pinned("gpio_keys"),
        RING,
        "'modprobe gpio_keys'",
        before="modprobe -r gpio_keys",
        after="modprobe gpio_keys",
    ),
    "that driver has no unbind": Case(
        on(SMMU, allow=["consumers"]),
        SMMU,
        "Remove the device from the list, or add initcall_blacklist=",
    ),
    "is in use: …": Case(on(CLOCK), CLOCK, "add 'consumers' to `allow`"),
    "is held open by …": Case(
        on(RING),
        RING,
        "Stop the process that uses it",
        before=_BY_HAND + "bind b100000.ring\n" + _HELD % _RING_HOME + "echo $! > /run/holder",
        after=_BY_HAND + "kill $(cat /run/holder); release b100000.ring\n" + _WITHOUT_VFIO,
    ),
    "Root privileges are required": Case(
        on(RING, persistent=False),
        "on the target",
        "become: true",
        before=_PYTHON
        % '#!/bin/sh\nexec setpriv --reuid=65534 --clear-groups env HOME=/tmp python3 "$@"',
        python="/root/a-python",
    ),
    "/sys is mounted read-only": Case(
        on(RING, persistent=False),
        "no driver can be changed",
        "`runtime: false`",
        before="mount -o remount,ro /sys",
        after="mount -o remount,rw /sys",
    ),
    "Group … does not exist on this host": Case(
        on(RING, vfio_group="nobodies"), "nobodies", "Create it first"
    ),
    "The target's Python is too old": Case(
        on(RING),
        "requires 3.8 or later",
        "ansible_python_interpreter",
        before=_PYTHON % "#!/bin/sh\ncat > /dev/null\necho 'SyntaxError: no' >&2\nexit 1",
        python="/root/a-python",
    ),
    "The host's answer is malformed": Case(
        on(RING),
        "devices is missing",
        "Check its Python interpreter",
        before=_PYTHON % "#!/bin/sh\ncat > /dev/null\necho '{\"ansible_facts\": {}}'",
        python="/root/a-python",
    ),
    "was not written by this collection": Case(
        on(RING),
        FOREIGN,
        "Move",
        before=f"echo '# mine' > {FOREIGN}",
        after=f"rm {FOREIGN}",
    ),
    "not a regular file": Case(
        on(RING), FOREIGN, "Remove it", before=f"mkfifo {FOREIGN}", after=f"rm {FOREIGN}"
    ),
    "Cannot write …: Read-only file system": Case(
        on(RING),
        "/etc/udev/rules.d/70-armfleet-vfio.rules",
        "remount it",
        before="mount --bind /etc/udev /etc/udev; mount -o remount,bind,ro /etc/udev",
        after="umount /etc/udev",
    ),
    "Cannot write …: Operation not permitted": Case(
        on(RING),
        "/etc/udev/rules.d/70-armfleet-vfio.rules",
        "'lsattr'",
        before=_CHANGE_ATTRIBUTE % "|",
        after=_CHANGE_ATTRIBUTE % "& ~",
    ),
    "Cannot write …: No space left on device": Case(
        on(RING),
        "/etc/udev/rules.d/70-armfleet-vfio.rules",
        "free space there",
        before="mount -t tmpfs -o size=4k none /etc/udev/rules.d; "
        "head -c 4096 /dev/zero > /etc/udev/rules.d/full",
        after="umount /etc/udev/rules.d",
    ),
    "Cannot lock …": Case(
        on(RING),
        LOCK,
        "free space there",
        before="mkdir -p -m 700 /run/armfleet-vfio; "
        "mount -t tmpfs -o size=4k,mode=700 none /run/armfleet-vfio; "
        "head -c 4096 /dev/zero > /run/armfleet-vfio/full",
        after="umount /run/armfleet-vfio",
    ),
    "there is no /boot/initrd.img-*": Case(
        on(RING, initramfs="always"),
        "`initramfs` is always",
        "'update-initramfs -c -k VERSION'",
        before="mount -t tmpfs none /boot",
        after="umount /boot",
    ),
    "Another run works on this host's devices": Case(
        on(RING, timeout=2),
        LOCK,
        "Wait for it or end it",
        before=f"mkdir -p -m 700 /run/armfleet-vfio; touch {LOCK}; "
        f"systemd-run --quiet --unit=hold flock --exclusive {LOCK} sh -c "
        "'touch /run/holds; exec sleep infinity'; until [ -e /run/holds ]; do :; done",
        after="systemctl stop hold",
    ),
    f"{JOURNAL}, the journal of an interrupted run, cannot be parsed": Case(
        on(RING),
        JOURNAL,
        "delete the file",
        before=f"mkdir -p -m 700 /run/armfleet-vfio; echo nonsense > {JOURNAL}",
        after=f"rm {JOURNAL}",
    ),
    "gives every user of the host access to the devices": Case(
        on(RING, vfio_mode="0666"), "'0666'", "`unsafe_vfio_mode: true`"
    ),
    "so a user other than root may have written it": Case(
        on(RING),
        "/run/armfleet-vfio is a directory (root:root mode 0777)",
        "remove it, and run again",
        before="mkdir -p -m 700 /run/armfleet-vfio; chmod 777 /run/armfleet-vfio",
        after="rm -r /run/armfleet-vfio",
    ),
    "cannot be parsed in line … The rest of it": Case(
        on(RING),
        JOURNAL,
        "delete the file",
        before=f"""
mkdir -p -m 700 /run/armfleet-vfio
{{
printf '{{"format": 1, "boot": "%s", ' $(cat /proc/sys/kernel/random/boot_id)
printf '"who": "me"}}\\n["file", "x", null, false]\\n'
}} > {JOURNAL}
""",
        after=f"rm {JOURNAL}",
    ),
}
# Rows whose case is left for the night, because other tests show them on a simulated host;
# tests/unit/tools/test_promises.py looks for them there.
LEFT_FOR_THE_NIGHT = {
    "the board is unknown",
    "exists and is not a symbolic link",
    "is claimed by this list and by driverctl",
    "is not loaded at boot",
    "so modprobe does not load …, which VFIO needs now",
    "but this list sets it to … at each boot",
    "is bound to VFIO without an IOMMU",
    "and the next boot requires one",
    "cannot be opened by VFIO",
    "This kernel … has no vfio-platform",
    "no module of the running kernel … can be loaded",
    "Driver … is not loaded",
    "Root privileges are required",
    "/sys is mounted read-only",
    "was not written by this collection",
    "not a regular file",
    "Cannot write …: Operation not permitted",
    "Cannot write …: No space left on device",
    "Cannot lock …",
}
# Rows that have tests of their own.
ALONE = {
    "The results cannot be written",
    "Give it as a string, such as '0644'",
    # In tests/matrix, because it requires two plays or two roles in one.
    "has applied another list or other options to … already",
    "did not answer within … s",
    "Not everything could be rolled back",
    "An earlier run on this host was interrupted",
    "Module … cannot be loaded",
    # In test_dma.py, because it requires a kernel with DMA engines.
    "DMA channels are in use",
    # In tests/unit/_in_use, because the unbind of such a device never ends.
    "holds the I2C adapter",
    "a mounted 9p device is never unbound",
    # In tests/pci, because they require SR-IOV.
    "can have … virtual functions, but sriov_numvfs is",
    "cannot set sriov_numvfs",
    "a change of sriov_numvfs removes it",
    # In tests/integration/test_other_buses.py, because they require these buses.
    "cannot be bound to VFIO by itself",
    "which the list takes from its driver",
    # Warnings, in tests/unit/_boot.
    "may be changed by a foreign udev rule",
    "another access than this list",
    "so the next boot does not have them unless",
    # Warnings, in tests/unit, and some for kernels that no guest has.
    "is refused (EPERM of vfio_iommu_type1)",
    "and user space cannot open devices through a container",
    "is loaded at boot depends on that command",
    "so modprobe.d does not set its parameters at boot",
    "is deprecated and will be removed in a future kernel release",
    "Use a kernel with CONFIG_VFIO_IOMMU_TYPE1",
    # In test_devices.py of the unit tests, because it requires ACPI.
    "the devices with that acpi_hid have acpi_uid",
    # In tests/unit/_boot/test_initramfs.py: the guest has none of them.
    "This host is managed by ostree",
    "This host boots an image",
    "This host has a read-only root that transactional-update changes",
    "This host builds its initramfs with",
    # In tests/unit/_boot/test_dracut_conf.py: the guest builds its images with initramfs-tools.
    "so dracut omits all drivers after it",
    "which … of this list requires. Remove it there",
    "of dracut, so images lack",
    "so images of dracut have no modules",
    "so the udev rules do not run in the initramfs",
    "is not loaded in the initramfs: devices that need it",
    # In test_carriers.py.
    "The next boot unbinds devices that are in use",
    # In tests/sweep/test_rollouts.py, because they require two rollouts.
    "has changed the list of this host and has not ended",
    "cannot be rolled back alone on this host, because the list was changed after it by",
    # In tests/unit/_boot/test_rollout_backup.py, because other versions wrote these files.
    "stored only the list before",
    "which a later version of this collection wrote",
    # In tests/unit/_apply/test_plan_digest.py.
    "This host is not as it was when the plan was made",
    "A run was interrupted on this host and must be rolled back first",
    "that a run in check mode returned on this host",
    # Of the control node, in test_fleet_plan.py of the unit tests and tests/sweep/test_plans.py.
    "was edited or is damaged. Make a new plan",
    "is no plan of armfleet.vfio.plan",
    "has another format than this version of the collection",
    "has a plan for none of these hosts",
    "The plan has nothing for this host",
}


@pytest.fixture(scope="module")
def guest(start: Callable[[str, str], Guest]) -> Guest:
    return start("test-d", "d")


@pytest.fixture(autouse=True)
def _nothing_changes(unchanged_guest: None) -> None:
    """No test changes the guest."""


def rows() -> list[str]:
    """Return the first column of the page's table."""
    return re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)


def lines_with(task: TaskResult, words: str) -> list[str]:
    """Return the lines of a refusal that contain the text of a row."""
    pattern = ".*".join(re.escape(part) for part in words.split("…"))
    return [line for line in task.refusal.splitlines() if re.search(pattern, line)]


def lines_about(task: TaskResult, row: str, case: Case) -> list[str]:
    return [line for line in lines_with(task, row) if case.subject in line]


def assert_explained(case: Case, lines: Sequence[str]) -> None:
    (line,) = lines
    assert case.subject in line
    assert case.remedy in line
    # The role renames options that are in backquotes; bare names would stay those of the module.
    assert bare_options(line) == []


def ask(inventory: Path, case: Case) -> Run:
    arguments: list[str] = []
    if case.python:
        python = f"ansible_python_interpreter={case.python}"
        arguments = ["-e", python, "-e", "ansible_remote_tmp=/tmp/any"]
    task = task_play(f"armfleet.vfio.{case.module}", case.options)
    return play(inventory, task, *arguments)


def selected(case: Case) -> set[str]:
    """Return what the entries of a case select, each device by one name."""
    keys = ("dt_path", "compatible", "name", "pci_address", "pci_id")
    values = [entry[key] for entry in case.options["devices"] for key in keys if key in entry]
    return {RING if value == "b100000.ring" else value for value in values}


def in_few_calls(waiting: Mapping[str, Case]) -> list[dict[str, Case]]:
    """Return the cases by calls: those of one have the same options and other devices."""
    calls: list[dict[str, Case]] = []
    for row, case in waiting.items():
        for call in calls:
            if all(can_share_a_call(case, other) for other in call.values()):
                call[row] = case
                break
        else:
            calls.append({row: case})
    return calls


def can_share_a_call(case: Case, other: Case) -> bool:
    return (
        case.module == other.module
        and {**case.options, "devices": None} == {**other.options, "devices": None}
        and selected(case).isdisjoint(selected(other))
        # The line of one could be taken for that of the other.
        and case.subject not in other.subject
        and other.subject not in case.subject
    )


def merged(cases: Iterable[Case]) -> dict[str, Any]:
    """Return the options of one call with the entries of all cases."""
    cases = list(cases)
    devices = [entry for case in cases for entry in case.options["devices"]]
    return {**cases[0].options, "devices": devices}


def test_the_page_has_no_row_that_is_not_provoked_here() -> None:
    assert sorted(rows()) == sorted([*CASES, *ALONE])
    assert set(CASES) >= LEFT_FOR_THE_NIGHT


def test_a_refusal_is_one_line_with_subject_cause_and_remedy(inventory: Path) -> None:
    """Ask for many at once; what is answered is corrected, until the last one is answered."""
    waiting = {row: case for row, case in CASES.items() if not case.before}
    while waiting:
        calls = in_few_calls(waiting)
        asked = [(next(iter(call.values())).module, merged(call.values())) for call in calls]
        answered = []
        for call, task in zip(calls, refused(inventory, asked), strict=True):
            lines = {row: lines_about(task, row, case) for row, case in call.items()}
            rows = [row for row in call if lines[row]]
            assert rows, task.refusal
            for row in rows:
                assert_explained(call[row], lines[row])
            answered += rows
        for row in answered:
            del waiting[row]


def test_independent_mistakes_are_told_at_once_in_the_order_of_the_list(inventory: Path) -> None:
    devices = [
        {"dt_path": CLOCK, "policy": "no_autobind"},
        {"compatible": "acme,off", "policy": "vfio"},
        *pinned("acme_stuck")["devices"],
        {"dt_path": PLAIN, "policy": "vfio"},
        {"dt_path": "ethernet9", "policy": "vfio"},
    ]
    (task,) = ask(inventory, Case({"devices": devices, "reset_required": False}, "", "")).tasks
    words = [
        f"{CLOCK} (platform device clock-gate) is in use: ",
        "compatible 'acme,off' matches no device: ",
        f"Driver acme_stuck for {RING} (platform device b100000.ring) does not exist here: ",
        f"{PLAIN} (platform device b019000.plain) has no IOMMU group ",
        "dt_path 'ethernet9' does not start with '/'",
    ]
    lines = task.result["msg"].splitlines()
    assert [line[: len(word)] for line, word in zip(lines, words, strict=True)] == words


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[pytest.mark.nightly] if row in LEFT_FOR_THE_NIGHT else [])
        for row, case in CASES.items()
        if case.before
    ],
)
def test_so_it_is_on_a_host_that_refuses_for_a_reason_of_its_own(
    guest: Guest, inventory: Path, row: str
) -> None:
    case = CASES[row]
    guest.run("bash -s", input=case.before)
    try:
        asked = ask(inventory, case)
    finally:
        if case.after:
            guest.run("bash -s", input=case.after)
    (task,) = asked.tasks
    assert_explained(case, lines_with(task, row))
    assert "Traceback" not in asked.output


def test_a_device_that_hangs_is_left_told_of_and_brought_back_later(
    guest: Guest, inventory: Path
) -> None:
    guest.run("echo Y > /sys/module/acme_stuck/parameters/stuck")
    (hanging,) = ask(inventory, Case(on(STUCK, timeout=3), "", "")).tasks
    guest.run("echo N > /sys/module/acme_stuck/parameters/stuck")
    (line,) = lines_with(hanging, "did not answer within … s")
    assert line.startswith(f"{STUCK} (platform device b010000.stuck): cannot unbind from")
    assert "is still waiting there (in acme_stuck_remove)" in line
    (line,) = lines_with(hanging, "Not everything could be rolled back")
    assert f"{STUCK} (platform device b010000.stuck): " in line
    assert f"are recorded in {JOURNAL}, and the next run tries again" in line
    guest.run("until [ ! -e /sys/bus/platform/drivers/acme-stuck/b010000.stuck ]; do :; done")
    (after,) = ask(inventory, Case(on("/soc/nothing@0"), "", "")).tasks
    (line,) = lines_with(after, "An earlier run on this host was interrupted")
    assert "Its changes were rolled back first" in line


def test_modules_that_the_kernel_will_not_take_are_known(guest: Guest, inventory: Path) -> None:
    guest.run(_WITHOUT_VFIO, check=False)
    module = guest.run("modinfo -F filename vfio_platform_base").stdout.strip()
    guest.run(f"cp {module} /root/signed.ko")
    assert guest.run("modinfo -F sig_id vfio_platform_base").stdout.strip()
    # scripts/sign-file appends the signature to the module.
    strip = f"""
content = open({module!r}, "rb").read()
length = int.from_bytes(content[-32:-28], "big")
open({module!r}, "wb").write(content[: -28 - 12 - length])
"""
    guest.run("python3 -", input=strip)
    remedy = "Sign it with a key that the kernel trusts"
    binding = Case(on(RING, "vfio", reset_required=False), "Module vfio_platform_base ", remedy)
    # Neither can be turned off again without a reboot.
    for command, cause in (
        ("echo integrity > /sys/kernel/security/lockdown", "(lockdown=integrity)"),
        ("echo Y > /sys/module/module/parameters/sig_enforce", "(module.sig_enforce)"),
    ):
        guest.run(command)
        (task,) = ask(inventory, binding).tasks
        assert_explained(binding, lines_with(task, "Module … cannot be loaded"))
        assert cause in task.result["msg"]
    assert guest.run("modprobe vfio_platform", check=False).returncode != 0
    guest.run(f"cp /root/signed.ko {module}")
    # Override, bind and unbind work under lockdown, and signed modules are loaded.
    assert play(inventory, task_play("armfleet.vfio.host_policy", binding.options)).code == 0
    assert read_machine(guest).at(RING).binding == ("vfio-platform", "vfio-platform")
    assert play(inventory, "armfleet.vfio.release").code == 0
