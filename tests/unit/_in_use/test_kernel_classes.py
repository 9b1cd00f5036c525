"""The kernel's uses of a device are read from each class, its module and its children."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from board import CRYPTO, Board
from hazards import HOME, NAME, assert_acceptable, assert_free, refusal

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use import dma
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import ACCEPTABLE
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import KernelBlockedError

TREE = "firmware/devicetree/base"


def add(board: Board, path: str, subsystem: str, files: Mapping[str, str]) -> None:
    """Add a device of a class or bus ("class/pwm", "bus/i2c") below the device."""
    board.kernel.point(f"{HOME}/{path}/subsystem", subsystem)
    for name, content in files.items():
        board.kernel.put(f"{HOME}/{path}/{name}", content + "\n")


class Case(NamedTuple):
    """A child device, with the content of its files when it is in use and when it is idle."""

    path: str
    subsystem: str
    used: Mapping[str, str]
    idle: Mapping[str, str]
    kind: str
    sentence: str


CASES = {
    "remoteproc": Case(
        "remoteproc/remoteproc0",
        "class/remoteproc",
        {"state": "running", "name": "r5f0"},
        {"state": "offline"},
        "consumers",
        "remote processor remoteproc0 (r5f0) is running",
    ),
    "remoteproc that another one booted": Case(
        "remoteproc/remoteproc0",
        "class/remoteproc",
        {"state": "detached", "name": "r5f0"},
        {"state": "invalid"},
        "consumers",
        "is detached",
    ),
    "regulator": Case(
        "regulator/regulator.3",
        "class/regulator",
        {"num_users": "2", "name": "vdd"},
        {"num_users": "0"},
        "consumers",
        "regulator.3 (vdd) supplies power, switched on by 2 users",
    ),
    "pwm": Case(
        "pwm/pwmchip0",
        "class/pwm",
        {"npwm": "2", "pwm1/enable": "0"},
        {"power/control": "auto"},
        "consumers",
        "pwmchip0 has exported pwm1",
    ),
    "gpio": Case(
        "gpiochip0/gpio/gpio496",
        "class/gpio",
        {"value": "0", "direction": "in"},
        {"base": "496"},
        "consumers",
        "gpio496 is exported to user space",
    ),
    "coresight source": Case(
        "etm0",
        "bus/coresight",
        {"enable_source": "1"},
        {"enable_source": "0"},
        "consumers",
        "etm0 is tracing (enable_source)",
    ),
    "coresight sink": Case(
        "tmc_etr0",
        "bus/coresight",
        {"enable_sink": "1"},
        {"enable_sink": "0"},
        "consumers",
        "tmc_etr0 is tracing (enable_sink)",
    ),
    "iio": Case(
        "iio:device0",
        "bus/iio",
        {"buffer0/enable": "1"},
        {"buffer0/enable": "0"},
        "consumers",
        "iio:device0 is capturing (buffer0)",
    ),
    "udc": Case(
        "udc/b000000.usb",
        "class/udc",
        {"function": "g_ether"},
        {"function": ""},
        "consumers",
        "USB gadget g_ether is bound to b000000.usb",
    ),
    "bluetooth": Case(
        "serial0/bluetooth/hci0",
        "class/bluetooth",
        {"hci0:11/uevent": ""},
        {"rfkill1/state": "1"},
        "network",
        "bluetooth controller hci0 has 1 connection",
    ),
    "mdio": Case(
        "mdio_bus/stmmac-0/stmmac-0:00",
        "bus/mdio_bus",
        {"attached_dev/flags": "0x1003"},
        {"attached_dev/flags": "0x1002"},
        "network",
        "is up on its PHY stmmac-0:00",
    ),
    "rtc alarm": Case(
        "rtc/rtc1",
        "class/rtc",
        {"hctosys": "0", "wakealarm": "1795000000"},
        {"hctosys": "0", "wakealarm": ""},
        "clock",
        "rtc1 has an alarm set (wakealarm)",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_class_tells_what_is_in_use(board: Board, case: Case) -> None:
    add(board, case.path, case.subsystem, case.used)
    if case.path.startswith("mdio_bus"):
        # attached_dev is a link; the last part of its target is the name of the interface.
        home = f"{HOME}/{case.path}"
        board.kernel.rename(f"{home}/attached_dev", f"{home}/eth9")
        board.kernel.point(f"{home}/attached_dev", f"{home}/eth9")
    assert case.sentence in refusal(board)
    assert_acceptable(board, case.kind)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_class_has_idle_is_free(board: Board, case: Case) -> None:
    add(board, case.path, case.subsystem, case.idle)
    assert_free(board)


# Uses that /sys shows outside the directory of the child device.
ELSEWHERE = {
    "framebuffer": (
        ("graphics/fb0", "class/graphics"),
        {
            "class/vtconsole/vtcon0/name": "(S) dummy device",
            "class/vtconsole/vtcon0/bind": "0",
            "class/vtconsole/vtcon1/name": "(M) frame buffer device",
        },
        ("class/vtconsole/vtcon1/bind", "1", "0"),
        ("console", "fb0 shows the virtual terminals"),
    ),
    "framebuffer of simpledrm, beside its card": (
        ("graphics/fb0", "class/graphics"),
        {
            "class/graphics/fb0/name": "simpledrmdrmfb",
            f"{HOME}/drm/card0/dev": "226:0",
            f"{HOME}/drm/card0/card0-Unknown-1/status": "connected",
            "class/vtconsole/vtcon1/name": "(M) frame buffer device",
        },
        ("class/vtconsole/vtcon1/bind", "1", "0"),
        ("console", "fb0 shows the virtual terminals"),
    ),
    "card of a kernel without devices for framebuffers": (
        ("drm/card0", "class/drm"),
        {
            f"{HOME}/drm/card0/card0-HDMI-A-1/status": "connected",
            "class/graphics/fbcon/rotate": "0",
            "class/vtconsole/vtcon0/name": "(S) dummy device",
            "class/vtconsole/vtcon1/name": "(M) frame buffer device",
        },
        ("class/vtconsole/vtcon1/bind", "1", "0"),
        ("console", "card0 may show the virtual terminals"),
    ),
    "virtio console": (
        ("virtio0/virtio-ports/vport0p0", "class/virtio-ports"),
        {},
        ("class/tty/console/active", "tty0 hvc0", "tty0"),
        ("console", "vport0p0 may be the system console hvc0"),
    ),
    "ima": (
        ("tpm/tpm0", "class/tpm"),
        {},
        ("kernel/security/ima/runtime_measurements_count", "120", "1"),
        ("consumers", "IMA has 120 measurements in tpm0"),
    ),
    "pci endpoint": (
        ("pci_epc/b000000.pcie-ep", "class/pci_epc"),
        {},
        ("kernel/config/pci_ep/controllers/b000000.pcie-ep/start", "1", "0"),
        ("consumers", "b000000.pcie-ep is started as a PCI endpoint"),
    ),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_class_tells_elsewhere_what_is_in_use(board: Board, name: str) -> None:
    (path, subsystem), files, (file, used, idle), (kind, sentence) = ELSEWHERE[name]
    add(board, path, subsystem, {})
    for other, content in files.items():
        board.kernel.put(other, content + "\n")
    board.kernel.put(file, used + "\n")
    assert sentence in refusal(board)
    assert f"add '{kind}' to `allow`" in refusal(board)
    board.kernel.put(file, idle + "\n")
    assert_free(board)


def test_a_card_without_a_screen_shows_no_terminals(board: Board) -> None:
    add(board, "drm/renderD128", "class/drm", {"dev": "226:128"})
    add(board, "drm/card1", "class/drm", {"dev": "226:1"})
    board.kernel.put("class/vtconsole/vtcon1/name", "(M) frame buffer device\n")
    board.kernel.put("class/vtconsole/vtcon1/bind", "1\n")
    assert_free(board)


def test_a_card_does_not_show_the_terminals_of_another_framebuffer(board: Board) -> None:
    add(board, "drm/card1", "class/drm", {"card1-DP-1/status": "disconnected"})
    board.kernel.put("class/graphics/fb0/name", "simpledrmdrmfb\n")
    board.kernel.put("class/vtconsole/vtcon1/name", "(M) frame buffer device\n")
    board.kernel.put("class/vtconsole/vtcon1/bind", "1\n")
    assert_free(board)


# Devices in use because a process has their nodes open.
NODES = {
    "drm": ("drm/card0", "class/drm", "dri/card0", "226:0", "Xorg"),
    "sound": ("sound/card0/pcmC0D0p", "class/sound", "snd/pcmC0D0p", "116:16", "pipewire"),
    "remoteproc": (
        "remoteproc/remoteproc0",
        "class/remoteproc",
        "remoteproc0",
        "245:0",
        "firmware-load",
    ),
    "video": ("video4linux/video0", "class/video4linux", "video0", "81:0", "camera-app"),
}


@pytest.mark.parametrize("kind", NODES)
def test_a_device_whose_node_a_process_has_open_is_in_use(board: Board, kind: str) -> None:
    path, subsystem, node, number, command = NODES[kind]
    add(board, path, subsystem, {"dev": number, "uevent": f"DEVNAME={node}"})
    assert_free(board)
    board.apply([])
    board.kernel.writes.clear()
    board.process(60, command, f"/dev/{node}")
    assert f"/dev/{node} is held open by {command} (pid 60)" in refusal(board)
    assert_acceptable(board, "consumers")


def test_memory_of_the_system_is_in_use(board: Board) -> None:
    add(board, "region0/dax0.0", "bus/dax", {})
    board.kernel.point(f"{HOME}/region0/dax0.0/driver", "bus/dax/drivers/kmem")
    assert "dax0.0 is part of the system's memory" in refusal(board)
    assert_acceptable(board, "consumers")


def test_a_trusted_environment_that_serves_drivers_is_in_use(board: Board) -> None:
    add(board, "tee/tee0", "class/tee", {})
    board.kernel.point("bus/tee/devices/optee-ta-rng/driver", "bus/tee/drivers/optee-rng")
    assert "tee0 serves optee-ta-rng" in refusal(board)


def test_the_watchdog_of_a_bmc_is_reached_through_its_interface(board: Board) -> None:
    add(board, "ipmi/ipmi0", "class/ipmi", {})
    board.kernel.put("module/ipmi_watchdog/refcnt", "0\n")
    assert "ipmi_watchdog uses its watchdog through ipmi0" in refusal(board)
    assert_acceptable(board, "watchdog")


def test_a_wireless_adapter_that_a_container_has_is_in_use(board: Board) -> None:
    board.kernel.make_directory(f"{HOME}/ieee80211")
    assert "a wireless adapter on it is in another network namespace" in refusal(board)


# Flash memory.


@pytest.fixture
def flash(board: Board) -> Board:
    """A board with flash memory on the device, in two partitions."""
    for path, name in (("spi0.0/mtd/mtd0", "mtd0"), ("spi0.0/mtd/mtd0/mtd1", "mtd1")):
        add(board, path, "class/mtd", {"name": name})
    return board


def test_flash_that_nothing_uses_is_free(flash: Board) -> None:
    flash.kernel.put("class/ubi/ubi0/mtd_num", "7\n")
    assert_free(flash)


def test_mounted_flash_is_in_use(flash: Board) -> None:
    flash.mount("31:1", "/data", "jffs2", "mtd:data")
    assert "flash mtd1: mtd1 is mounted on /data" in refusal(flash)
    assert_acceptable(flash, "storage")


def test_flash_that_is_mounted_and_open_takes_both_kinds(flash: Board) -> None:
    flash.mount("31:1", "/data", "jffs2", "mtd:data")
    flash.kernel.put(f"{HOME}/spi0.0/mtd/mtd0/mtd1/dev", "90:2\n")
    flash.kernel.put(f"{HOME}/spi0.0/mtd/mtd0/mtd1/uevent", "DEVNAME=mtd1\n")
    flash.process(40, "flashcp", "/dev/mtd1")
    assert "/dev/mtd1 is held open by flashcp" in refusal(flash, allow=["storage"])
    assert "mtd1 is mounted on /data" in refusal(flash, allow=["consumers"])
    assert_free(flash, allow=["consumers", "storage"])


@pytest.mark.parametrize(
    "source", ["ubi0:root", "/dev/ubi0_1", "ubi:root", "ubi1", "/dev/ubiblock0_0"]
)
def test_flash_below_mounted_volumes_is_in_use(flash: Board, source: str) -> None:
    flash.kernel.put("class/ubi/ubi0/mtd_num", "1\n")
    assert "flash mtd1: mtd1 is part of ubi0." in refusal(flash)
    flash.mount("0:40", "/", "ubifs", source)
    assert f"mtd1 is part of ubi0, {source} is mounted on /" in refusal(flash)
    assert_acceptable(flash, "storage")


def test_squashfs_on_a_partition_is_in_use(flash: Board) -> None:
    """mtdblock is a disk below the partition: add_mtd_blktrans_dev in drivers/mtd."""
    disk = "spi0.0/mtd/mtd0/mtd1/mtdblock1"
    add(flash, disk, "class/block", {"dev": "31:1"})
    flash.mount("31:1", "/", "squashfs", "/dev/root")
    message = refusal(flash)
    assert "disk mtdblock1: mtdblock1 is mounted on /" in message
    assert "flash mtd1: mtd1 is mounted on /" in message
    assert_acceptable(flash, "storage")


def test_squashfs_on_a_volume_is_in_use_whatever_its_source_is_called(flash: Board) -> None:
    flash.kernel.put("class/ubi/ubi0/mtd_num", "1\n")
    for number in range(2):
        block = f"devices/virtual/block/ubiblock0_{number}"
        flash.kernel.put(f"{block}/dev", f"254:{number}\n")
        flash.kernel.point(f"class/block/ubiblock0_{number}", block)
    flash.kernel.put("devices/virtual/block/dm-0/dev", "253:0\n")
    flash.kernel.point(
        "devices/virtual/block/ubiblock0_1/holders/dm-0", "devices/virtual/block/dm-0"
    )
    flash.mount("254:0", "/", "squashfs", "/dev/root")
    flash.mount("253:0", "/usr", "squashfs", "/dev/mapper/usr")
    reported = (
        "mtd1 is part of ubi0, ubiblock0_0 is mounted on /, ubiblock0_1 is part of dm-0, dm-0 is"
    )
    assert f"{reported} mounted on /usr" in refusal(flash)
    assert_acceptable(flash, "storage")


def test_volumes_of_other_flash_are_none_of_it(flash: Board) -> None:
    flash.kernel.put("class/ubi/ubi1/mtd_num", "7\n")
    block = "devices/virtual/block/ubiblock1_0"
    flash.kernel.put(f"{block}/dev", "254:0\n")
    flash.kernel.point("class/block/ubiblock1_0", block)
    flash.mount("254:0", "/", "squashfs", "/dev/root")
    assert_free(flash)


# Children with drivers of their own.


def bind(board: Board, path: str, bus: str, driver: str, node: str | None = None) -> None:
    add(board, path, f"bus/{bus}", {})
    board.kernel.point(f"{HOME}/{path}/driver", f"bus/{bus}/drivers/{driver}")
    if node:
        board.kernel.point(f"{HOME}/{path}/of_node", f"{TREE}{node}")


@pytest.mark.parametrize(
    ("path", "bus", "driver", "node"),
    [
        ("i2c-0/0-0050", "i2c", "at24", None),
        ("spi_master/spi0/spi0.0", "spi", "spi-nor", None),
        ("serial0/serial0-0", "serial", "hci_uart_bcm", None),
        ("b000100.usb", "platform", "dwc3", "/soc/crypto@b000000/usb@100"),
        ("pci0000:00/0000:00:01.0", "pci", "nvme", None),
    ],
)
def test_a_child_that_would_lose_its_driver_is_in_use(
    board: Board, path: str, bus: str, driver: str, node: str | None
) -> None:
    bind(board, path, bus, driver, node)
    name = path.rpartition("/")[2]
    sentence = f"{bus}:{name} below it is bound to {driver} and would be unbound"
    assert sentence in refusal(board)
    assert_acceptable(board, "consumers")


@pytest.mark.parametrize(
    ("path", "bus", "driver", "node"),
    [
        ("virtio0", "virtio", "virtio_rng", None),
        ("alarmtimer.1.auto", "platform", "alarmtimer", None),
        ("xhci-hcd.0", "platform", "xhci-hcd", "/soc/crypto@b000000"),
        ("usb1/1-0:1.0", "usb", "hub", None),
        ("pci0000:00/0000:00:00.0", "pci", "pcieport", None),
        ("i2c-0/0-0051", "i2c", "dummy", None),
        ("spi_master/spi0/spi0.1", "spi", "spidev", None),
        ("gpiochip0", "gpio", "gpio_stub_drv", "/soc/crypto@b000000/bank@0"),
    ],
)
def test_a_child_that_is_part_of_the_device_is_no_use_of_it(
    board: Board, path: str, bus: str, driver: str, node: str | None
) -> None:
    bind(board, path, bus, driver, node)
    assert_free(board)


def test_a_child_without_a_driver_is_no_use(board: Board) -> None:
    add(board, "i2c-0/0-0050", "bus/i2c", {})
    assert_free(board)


def test_a_child_that_a_virtual_machine_has_open_is_never_taken(board: Board) -> None:
    path = "pci0000:00/0000:00:01.0"
    bind(board, path, "pci", "vfio-pci")
    board.kernel.point(f"{HOME}/{path}/iommu_group", "kernel/iommu_groups/9")
    board.process(90, "qemu-system-aar", "/dev/vfio/9")
    message = refusal(board, allow=ACCEPTABLE)
    assert "/dev/vfio/9 is held open by qemu-system-aar (pid 90)" in message
    assert "an open device is never unbound" in message


def test_a_child_that_may_be_the_open_device_is_never_taken(board: Board) -> None:
    path = "pci0000:00/0000:00:01.0"
    bind(board, path, "pci", "vfio-pci")
    board.kernel.point(f"{HOME}/{path}/iommu_group", "kernel/iommu_groups/9")
    board.process(92, "vmm", "anon_inode:[vfio-device]")
    message = refusal(board, allow=ACCEPTABLE)
    assert "it may be the VFIO device that is held open by vmm (pid 92)" in message


def test_a_consumer_that_a_virtual_machine_has_open_is_never_taken(board: Board) -> None:
    board.apply([{"name": "b001000.crypto", "policy": "vfio"}], reset_required=False)
    board.kernel.add_link(NAME, "b001000.crypto")
    home = "devices/platform/b001000.crypto"
    board.kernel.point(f"{HOME}/consumer:platform:b001000.crypto/consumer", home)
    group = board.kernel.link_name(f"{home}/iommu_group")
    board.process(91, "crosvm", f"/dev/vfio/{group}")
    with pytest.raises(PolicyError) as caught:
        board.apply([{**CRYPTO, "policy": "no_autobind"}], allow=ACCEPTABLE)
    assert f"/dev/vfio/{group} is held open by crosvm (pid 91)" in str(caught.value)


@pytest.mark.parametrize("is_bound", [True, False])
def test_a_consumer_by_a_link_that_its_driver_made_is_known(board: Board, is_bound: bool) -> None:
    board.kernel.add_link(NAME, "b002000.dma")
    link = "devices/virtual/devlink/platform:b000000.crypto--platform:b002000.dma"
    board.kernel.put(f"{link}/status", "not tracked\n")
    consumer = "b002000.dma" if is_bound else "soc:nothing"
    board.kernel.point(f"{link}/consumer", f"devices/platform/{consumer}")
    if is_bound:
        assert "platform:b002000.dma uses it (a device link of its driver)" in refusal(board)
        assert_acceptable(board, "consumers")
    else:
        assert_free(board)


# Uses that only the device tree shows.


def test_a_sensor_of_a_thermal_zone_that_is_watched_is_in_use(board: Board) -> None:
    kernel = board.kernel
    name = "a-long-thermal-zone"
    zone = f"/thermal-zones/{name}"
    kernel.put(f"{TREE}/soc/crypto@b000000/phandle", b"\0\0\0\x21")
    kernel.put(f"{TREE}/soc/crypto@b000000/#thermal-sensor-cells", b"\0\0\0\x01")
    kernel.put(f"{TREE}{zone}/thermal-sensors", b"\0\0\0\x21\0\0\0\0")
    kernel.put("class/thermal/thermal_zone0/type", name[:19] + "\n")
    kernel.put("class/thermal/thermal_zone0/mode", "enabled\n")
    message = refusal(board)
    assert (
        "thermal zone a-long-thermal-zone uses it (thermal-sensors in the device tree)" in message
    )
    kernel.put("class/thermal/thermal_zone0/mode", "disabled\n")
    assert_free(board)


def test_a_fan_of_a_thermal_zone_is_in_use(board: Board) -> None:
    kernel = board.kernel
    kernel.put(f"{TREE}/soc/crypto@b000000/phandle", b"\0\0\0\x21")
    kernel.put(f"{TREE}/soc/crypto@b000000/#cooling-cells", b"\0\0\0\x02")
    cooling = f"{TREE}/thermal-zones/board/cooling-maps/map0/cooling-device"
    kernel.put(cooling, b"\0\0\0\x21\0\0\0\0\0\0\0\x03")
    kernel.put("class/thermal/thermal_zone0/type", "board\n")
    kernel.put("class/thermal/thermal_zone0/mode", "enabled\n")
    assert "thermal zone board uses it (cooling-device in the device tree)" in refusal(board)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("sound-dai", "#sound-dai-cells"),
        ("mux-controls", "#mux-control-cells"),
        ("phy-handle", None),
        ("fpga-mgr", None),
    ],
)
def test_a_property_that_makes_no_device_link_is_read(
    board: Board, name: str, cells: str | None
) -> None:
    kernel = board.kernel
    kernel.put(f"{TREE}/soc/crypto@b000000/phandle", b"\0\0\0\x21")
    if cells:
        kernel.put(f"{TREE}/soc/crypto@b000000/{cells}", b"\0\0\0\0")
    kernel.put(f"{TREE}/soc/dma@b002000/{name}", b"\0\0\0\x21")
    assert f"platform:b002000.dma uses it ({name} in the device tree)" in refusal(board)


# Uses that no bus or class shows.


def test_interrupts_that_come_through_a_device_are_a_use(board: Board) -> None:
    lines = [
        "           CPU0       CPU1",
        " 13:       1200        900     GICv3  27 Level     arch_timer",
        f" 40:          3          0     {NAME}   3 Edge      GPIO Key Poweroff",
        f" 41:          0          0     GICv3  36 Level     {NAME}",
        f" 42:          0          0     {NAME}   Edge",
        "",
        "IPI0:        10         20       Rescheduling interrupts",
        "Err:          0",
    ]
    (board.proc / "interrupts").write_text("\n".join(lines) + "\n")
    message = refusal(board)
    assert "it delivers interrupts (GPIO Key Poweroff)" in message
    assert_acceptable(board, "consumers")


def test_an_interrupt_that_a_device_has_itself_is_no_use(board: Board) -> None:
    line = f" 41:          0     GICv3  36 Level     {NAME}"
    (board.proc / "interrupts").write_text(f"           CPU0\n{line}\n")
    assert_free(board)


def test_algorithms_of_a_module_that_somebody_uses_are_a_use(board: Board) -> None:
    blocks = "".join(
        f"name         : {name}\ndriver       : {driver}\nmodule       : {module}\n"
        f"refcnt       : {count}\n\n"
        for name, driver, module, count in (
            ("cbc(aes)", "cbc-aes-acme", "acme", "%d"),
            ("sha256", "sha256-ce", "sha2_ce", 3),
        )
    )
    crypto = board.proc / "crypto"
    crypto.write_text(blocks % 2)
    board.kernel.put("module/acme/refcnt", "1\n")
    assert "the kernel uses cbc-aes-acme of its driver's module acme" in refusal(board)
    assert_acceptable(board, "consumers")
    board.apply([])
    crypto.write_text(blocks % 1)
    assert_free(board)


ETHERNET = {"dt_path": "/soc/ethernet@e0700000", "policy": "no_autobind"}


def test_a_module_that_is_in_use_for_its_only_device_is_a_use(board: Board) -> None:
    board.kmod.load("acme_eth")
    board.kernel.put("module/acme_eth/refcnt", "1\n")
    with pytest.raises(PolicyError) as caught:
        board.apply([ETHERNET])
    reported = (
        "its driver's module acme_eth is in use (1 reference), and no other device is bound to"
    )
    assert reported in str(caught.value)
    board.kernel.make_directory("module/acme_eth/holders")
    board.kernel.point("module/acme_eth/holders/acme_lag", "module/acme")
    board.apply([ETHERNET])
    assert board.kernel.driver_of("b004000.ethernet") is None


def test_the_module_of_a_clock_is_in_use_for_good(board: Board) -> None:
    board.kmod.load("acme_eth")
    board.kernel.put("module/acme_eth/refcnt", "1\n")
    board.kernel.put("devices/platform/b004000.ethernet/rtc/rtc1/hctosys", "0\n")
    board.apply([ETHERNET])
    assert board.kernel.driver_of("b004000.ethernet") is None


def test_a_module_of_several_devices_does_not_tell_which_is_in_use(board: Board) -> None:
    board.kernel.put("module/acme/refcnt", "1\n")
    assert_free(board)


def test_a_driver_that_sets_the_frequency_of_processors_is_in_use(board: Board) -> None:
    board.kernel.put("devices/system/cpu/cpufreq/policy0/scaling_driver", "acme-crypto\n")
    message = refusal(board)
    assert "its driver acme-crypto sets the frequency of the processors (policy0)" in message
    assert_acceptable(board, "consumers")


# DMA channels.


@pytest.fixture
def engine(board: Board) -> Board:
    """A board with four idle DMA channels on the device."""
    for number in range(4):
        add(board, f"dma/dma0chan{number}", "class/dma", {"in_use": "0"})
    return board


def take(board: Board, channel: int, clients: str = "1") -> None:
    board.kernel.put(f"{HOME}/dma/dma0chan{channel}/in_use", clients + "\n")


def test_dma_channels_that_nobody_has_are_free(engine: Board) -> None:
    assert_free(engine)


def test_dma_channels_in_use_are_never_taken_away(engine: Board) -> None:
    take(engine, 0)
    take(engine, 2, "3")
    for allow in ([], ["consumers"], ACCEPTABLE):
        message = refusal(engine, allow=allow)
        assert (
            "2 of its 4 DMA channels are in use: dma0chan0 by 1 client of the kernel, dma0chan2 by "
            "3 clients of the kernel. Stop or unload its" in message
        )
    (inspection,) = engine.inspect(None).devices[:1]
    assert [(hazard.kind, hazard.is_fatal) for hazard in inspection.hazards] == [
        ("consumers", True)
    ]


def test_one_channel_is_said_to_be_one(engine: Board) -> None:
    take(engine, 1)
    assert "1 of its 4 DMA channels is in use: dma0chan1 by 1 client" in refusal(engine)


def test_who_takes_all_channels_is_named(engine: Board) -> None:
    board = engine
    for channel in range(4):
        take(board, channel)
    board.kernel.point("module/async_tx/holders/raid456", "module/raid456")
    assert "(module async_tx claims all channels, for raid456)" in refusal(board)
    board.kernel.remove("module/async_tx/holders/raid456")
    assert "(module async_tx claims all channels)" in refusal(board)


@pytest.fixture
def client(engine: Board) -> Board:
    """The board with a DMA channel that b002000.dma has requested by name."""
    take(engine, 1)
    engine.kernel.point(f"{HOME}/dma/dma0chan1/slave", "devices/platform/b002000.dma")
    return engine


def test_the_device_that_has_a_channel_is_named(client: Board) -> None:
    message = refusal(client, allow=ACCEPTABLE)
    assert "1 of its 4 DMA channels is in use: dma0chan1 by b002000.dma. Stop or" in message


@pytest.mark.parametrize("label", [f"platform:{NAME}", NAME])
def test_a_channel_whose_client_the_kernel_unbinds_first_can_be_accepted(
    client: Board, label: str
) -> None:
    client.kernel.put(f"devices/platform/b002000.dma/supplier:{label}/status", "active\n")
    assert "dma0chan1 by b002000.dma" in refusal(client)
    assert_acceptable(client, "consumers")


def test_counts_that_cannot_be_read_count_as_in_use(
    engine: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_locked = type(engine.kernel).read_locked

    def blocked(kernel: Any, paths: list[str]) -> list[str | None]:
        if paths and paths[0].endswith("in_use"):
            raise KernelBlockedError(paths[0], 30, 4711, None)
        return read_locked(kernel, paths)

    monkeypatch.setattr(type(engine.kernel), "read_locked", blocked)
    message = refusal(engine, allow=ACCEPTABLE)
    assert "the kernel does not report whether its DMA channels are in use" in message


def test_a_folder_of_that_name_without_channels_is_none(board: Board) -> None:
    assert not dma.has_channels(board.kernel, f"{HOME}/dma", [])
    assert not dma.has_channels(board.kernel, f"{HOME}/dma", ["power"])
