"""Boots through an initramfs with the native driver, with and without our rules in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.boots import test_device_tree as device_tree
from tests.boots.table import UNTOUCHED, Boots, Case, Row
from tests.guest.packages import STOCK_SERIES
from tests.harness.sysfs import read_machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.guest import Guest

NATIVE, VFIO = ("acme-ring", None), ("vfio-platform",) * 2
IMAGE = "/boot/initrd.img-$(uname -r)"
HOOK = "/etc/initramfs-tools/hooks/armfleet-vfio"
CONFIGURATION = "/etc/dracut.conf.d/armfleet-vfio.conf"
OUTDATED = "/var/lib/armfleet-vfio/initramfs-outdated"
MODULE = "armfleet.vfio.initramfs"
RULES, OPTIONS = "70-armfleet-vfio.rules", "armfleet-vfio.conf"
LIST: list[dict[str, Any]] = [
    {"dt_path": "/soc/ring@b100000", "policy": "vfio"},
    {"compatible": "acme,dma-v2", "policy": "vfio"},
]
SETTINGS = {"passthrough_devices": LIST, "passthrough_reset_required": False}
# Records the binding of each device at the end of the initramfs.
WITNESS = """\
#!/bin/sh
case "$1" in prereqs) exit 0 ;; esac
for device in /sys/bus/platform/devices/*.ring /sys/bus/platform/devices/*.dma; do
    driver=$(readlink $device/driver)
    echo "${device##*/} ${driver##*/} $(cat $device/driver_override)"
done > /run/witness
"""
# The initramfs of a machine whose root disk depends on such devices. Drivers of disks that no guest
# has are omitted, because both tools are slow under emulation.
NATIVE_EARLY = """
    cd /usr/share/initramfs-tools/hooks && chmod -x dmsetup lvm2 mdadm
    printf 'COMPRESS=gzip\\nCOMPRESSLEVEL=1\\n' > /etc/initramfs-tools/conf.d/quick
    echo acme >> /etc/initramfs-tools/modules
    cat > /etc/initramfs-tools/scripts/init-bottom/witness
    chmod 755 /etc/initramfs-tools/scripts/init-bottom/witness
    touch /boot/vmlinuz-$(uname -r)
"""
BUILD = f"update-initramfs -c -k all && test -s {IMAGE}"
# The distribution's kernel needs modules for the root disk; a small kernel has all of it built in.
ROOT_DISK = """
    echo MODULES=dep > /etc/initramfs-tools/conf.d/root
"""
NO_MODULES = """
    echo MODULES=list > /etc/initramfs-tools/conf.d/root
    cd /usr/share/initramfs-tools/hooks && chmod -x fsck keymap thermal
"""
# dracut finds libraries in the cache of ldconfig, which a package installation would update.
NATIVE_EARLY_DRACUT = """
    ldconfig
    echo 'compress="gzip -1"' > /etc/dracut.conf.d/quick.conf
    echo 'omit_dracutmodules+=" dm lvm mdraid nvdimm hwdb "' >> /etc/dracut.conf.d/quick.conf
    mkdir -p /usr/lib/dracut/modules.d/99witness
    cd /usr/lib/dracut/modules.d/99witness
    cat > witness.sh
    printf 'install() {\\n inst_hook pre-pivot 99 "$moddir/witness.sh"\\n}\\n' > module-setup.sh
    echo 'force_drivers+=" acme "' > /etc/dracut.conf.d/native.conf
"""


def cases(title: str) -> list[Case]:
    return [
        Case(f"{title}, path", "b100000.ring", VFIO),
        Case("  its sibling", "b101000.ring", UNTOUCHED),
        Case(f"{title}, compatible", "b021000.dma", VFIO),
    ]


@pytest.fixture(scope="module")
def guest(start: Callable[..., Guest], kernel: str, depth: str) -> Guest:
    guest = start(f"boots-early-{kernel.replace('.', '-')}", "f", kernel)
    modules = ROOT_DISK if kernel == STOCK_SERIES else NO_MODULES
    # What was there before does not matter to the one test of make test.
    build = BUILD if depth == "nightly" else f"echo nothing > {IMAGE}"
    guest.run(modules + NATIVE_EARLY + build, input=WITNESS, timeout=600)
    return guest


@pytest.fixture
def boots(guest: Guest, inventory: Path) -> Boots:
    return Boots(guest, inventory, SETTINGS)


@pytest.fixture
def boot(guest: Guest, tmp_path: Path) -> Callable[[], None]:
    """Return a function that boots with the initramfs that the guest has built."""

    def boot_it() -> None:
        guest.get(guest.run(f"echo {IMAGE}").stdout.strip(), tmp_path / "initramfs")
        guest.start_again(initramfs=tmp_path / "initramfs")

    return boot_it


def content(guest: Guest) -> set[str]:
    """Return the names of files in the image, and of modules as the kernel spells them."""
    return names_of(guest.run(f"lsinitramfs {IMAGE}", timeout=300).stdout)


def drivers_above(guest: Guest) -> set[str]:
    """Return the modules of drivers of devices that have devices below them.

    The dracut-install of forky, with which initramfs-tools copies modules there, adds the driver of
    what is above a device whose driver it copies.
    """
    above = "for device in $(readlink -f /sys/bus/platform/devices/*); do "
    above += "readlink ${device%/*}/driver/module || true; done"
    return {module.rpartition("/")[2] for module in guest.run(above).stdout.split()}


def names_of(listing: str) -> set[str]:
    listed = set(listing.splitlines())
    directories = {path.rpartition("/")[0] for path in listed}
    names = {path.rpartition("/")[2].partition(".ko") for path in listed - directories}
    return {name.replace("-", "_") if dot else name for name, dot, _rest in names}


@pytest.mark.nightly
def test_an_initramfs_without_our_rules(
    boots: Boots, record: Callable[[Row], None], boot: Callable[[], None]
) -> None:
    boots.apply(passthrough_runtime=False, passthrough_initramfs="never")
    early = content(boots.guest)
    assert "acme" in early
    assert not early & {RULES, "vfio_platform"}
    never = Boots(boots.guest, boots.inventory, {**SETTINGS, "passthrough_initramfs": "never"})
    never.try_twice(cases("native driver in the initramfs"), record, boot)
    assert boots.witnessed(cases("")) == [NATIVE] * 3


@pytest.mark.nightly
def test_rules_in_the_initramfs_and_vfio_platform_only_after_it(
    boots: Boots, record: Callable[[Row], None], boot: Callable[[], None]
) -> None:
    """The upgrade of a kernel package builds such an image, without a run of this collection."""
    boots.guest.run("update-initramfs -u", timeout=300)
    early = content(boots.guest)
    assert early >= {RULES, OPTIONS}
    assert "vfio_platform" not in early
    never = Boots(boots.guest, boots.inventory, {**SETTINGS, "passthrough_initramfs": "never"})
    never.try_twice(cases("vfio-platform late"), record, boot)
    assert boots.witnessed(cases("")) == [(None, "vfio-platform"), NATIVE, (None, "vfio-platform")]


def test_initramfs_tools_puts_in_what_is_needed_and_no_more(
    boots: Boots, record: Callable[[Row], None], boot: Callable[[], None], kernel: str, depth: str
) -> None:
    """initramfs-tools copies the rules itself; the modules come from the hook.

    The list is that of a boot without an initramfs, which is left for the night.
    """
    device_tree.load_modules_late(boots.guest, kernel)
    boots = Boots(boots.guest, boots.inventory, device_tree.settings(kernel))
    before = content(boots.guest) - {RULES, OPTIONS} if depth == "nightly" else None
    run = boots.apply()
    assert run.of(MODULE)["command"][:2] == ["/usr/sbin/update-initramfs", "-u"]
    needed = {"vfio", "vfio_amba", "vfio_iommu_type1", "vfio_platform", "vfio_platform_base"}
    if kernel != STOCK_SERIES:
        # Debian's kernel is built without iommufd.
        needed.add("iommufd")
    needed |= {RULES, OPTIONS}
    after = content(boots.guest)
    added = after & needed if before is None else after - before
    assert added - drivers_above(boots.guest) == needed
    (image,) = run.of(MODULE)["images"]
    assert (image["rebuilt"], image["missing"], image["unexpected"]) == (True, [], [])
    if depth == "nightly":
        assert_an_image_that_is_not_rebuilt_is_found_out(boots)
    once = depth != "nightly"
    boots.try_twice(device_tree.cases(kernel), record, boot, once=once)
    assert boots.witnessed(cases("")) == [VFIO, NATIVE, VFIO]
    assert is_usable(boots.guest)


@pytest.mark.nightly
def test_a_release_takes_everything_out_again(boots: Boots) -> None:
    run = boots.apply(passthrough_devices=[])
    assert run.of(MODULE)["command"][:2] == ["/usr/sbin/update-initramfs", "-u"]
    assert boots.guest.run(f"ls {HOOK}", check=False).returncode
    early = content(boots.guest)
    assert "acme" in early
    assert not early & {RULES, OPTIONS, "vfio", "vfio_platform"}


@pytest.mark.nightly
def test_dracut_does_the_same(
    boots: Boots, record: Callable[[Row], None], boot: Callable[[], None]
) -> None:
    boots.guest.run("mv /usr/sbin/update-initramfs /root")
    boots.guest.run(NATIVE_EARLY_DRACUT, input=WITNESS)
    run = boots.apply()
    assert run.of(MODULE)["command"][0] == "/usr/bin/dracut"
    assert boots.guest.run(f"ls {HOOK}", check=False).returncode
    early = content(boots.guest)
    assert early >= {RULES, OPTIONS, "acme", "vfio_platform", "vfio_iommu_type1"}
    boots.try_twice(cases("dracut, vfio-platform in the initramfs"), record, boot)
    assert boots.witnessed(cases("")) == [VFIO, NATIVE, VFIO]
    assert is_usable(boots.guest)


@pytest.mark.nightly
def test_a_release_takes_everything_out_of_what_dracut_made(boots: Boots) -> None:
    run = boots.apply(passthrough_devices=[])
    assert run.of(MODULE)["command"][0] == "/usr/bin/dracut"
    assert boots.guest.run(f"ls {CONFIGURATION}", check=False).returncode
    early = content(boots.guest)
    assert "acme" in early
    # dracut takes all of updates/ by itself, where the drivers are that Debian's kernel lacks.
    by_itself = names_of(boots.guest.run("find /lib/modules/*/updates -name '*.ko*'").stdout)
    assert not early & {RULES, OPTIONS}
    assert not early & {"vfio_platform", "vfio_platform_base", "vfio_amba"} - by_itself


@pytest.mark.nightly
def test_a_host_with_neither_is_told_so(boots: Boots) -> None:
    boots.guest.run("rm -f /usr/sbin/mkinitramfs /usr/sbin/update-initramfs /usr/bin/dracut")
    assert "neither initramfs-tools nor dracut" in boots.apply().output
    assert read_machine(boots.guest).named("b100000.ring").binding == VFIO


def assert_an_image_that_is_not_rebuilt_is_found_out(boots: Boots) -> None:
    """Assert that runs fail if update-initramfs is disabled, although it then exits with 0."""
    switch = "/etc/initramfs-tools/update-initramfs.conf"
    boots.guest.run(f"echo update_initramfs=no > {switch}; touch /etc/udev/rules.d/{RULES}")
    # The second run tries again, because the first one failed.
    for _attempt in range(2):
        failed = boots.attempt()
        assert failed.code != 0
        message = failed.of(MODULE)["msg"]
        assert "was not rebuilt, although '/usr/sbin/update-initramfs -u" in message
        assert "Not updating initramfs." in message
        assert "lacks" not in message
    # The image has all files: only its age suggested a rebuild.
    boots.guest.run(f"rm {switch}; touch {IMAGE}; rm {OUTDATED}")
    assert boots.apply().changed == {boots.guest.name: 0}


def is_usable(guest: Guest) -> bool:
    """Return whether the type 1 IOMMU driver is loaded, so that user space can use the device."""
    return "vfio_iommu_type1" in guest.run("ls /sys/module").stdout.split()
