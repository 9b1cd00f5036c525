"""A run reports all problems of a list at once: each once, and in the order of the list."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict

import pytest
from ansible.module_utils.testing import patch_module_args
from board import AMBA, CRYPTO, DMA, Board
from simulated_kernel import TREE, Driver

from tests.harness.modules import MODULES, run_on

Call = Callable[..., Dict[str, Any]]
BUSY = {"dt_path": "/soc/eth@b00a000", "policy": "no_autobind"}
MISSING = {"compatible": "acme,gone", "policy": "vfio"}
DISABLED = {"compatible": "acme,off", "policy": "vfio"}


@pytest.fixture
def refused(
    board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Return a function that runs a module and returns the problems of its refusal."""
    run_on(board, monkeypatch)

    def run(devices: list[dict[str, Any]], module: str = "host_policy", **arguments: Any) -> Any:
        given = patch_module_args({"devices": devices, **arguments})
        with board.unchanged(), given, pytest.raises(SystemExit):
            MODULES[module].main()
        return json.loads(capsys.readouterr().out)["msg"].splitlines()

    return run


@pytest.fixture
def board(board: Board) -> Board:
    """The board with a network device that is in use, and a disabled node."""
    kernel = board.kernel
    kernel.register(Driver("acme-mac", compatible=("acme,mac",)))
    kernel.add_device("b00a000.eth", "/soc/eth@b00a000", ("acme,mac",))
    kernel.put("devices/platform/b00a000.eth/watchdog/watchdog7/state", "active\n")
    kernel.point("devices/platform/b00a000.eth/watchdog/watchdog7/subsystem", "class/watchdog")
    kernel.add_node("/soc/off@1", ("acme,off",), status="disabled")
    return board


def test_five_independent_mistakes_give_five_sentences_in_the_lists_order(
    refused: Callable[..., list[str]],
) -> None:
    devices = [
        BUSY,
        MISSING,
        {"name": "b002000.dma", "policy": "driver", "driver": "acme"},
        CRYPTO,
        DISABLED,
        AMBA,
        {"dt_path": "crypto7", "policy": "vfio"},
    ]
    sentences = refused(devices, reset_required=False)
    words = [
        "/soc/eth@b00a000 (platform device b00a000.eth) is in use: watchdog7 is running",
        "compatible 'acme,gone' matches no device: no device of a supported bus has it. If",
        "Driver acme for /soc/dma@b002000 (platform device b002000.dma) does not exist here: on",
        "compatible 'acme,off' matches no device: no device of a supported bus has it, but it is",
        "dt_path 'crypto7' does not start with '/'",
    ]
    assert [sentence[: len(word)] for sentence, word in zip(sentences, words)] == words
    assert len(sentences) == len(words)


def test_every_kind_of_reason_is_among_them(
    board: Board, refused: Callable[..., list[str]]
) -> None:
    board.write_file("/etc/modprobe.d/armfleet-vfio.conf", "# mine\n")
    board.host.files.write_atomic("/etc/driverctl.d/platform-b003000.dma", "none\n")
    devices = [
        {"name": "a/b", "policy": "vfio"},
        dict(DMA, policy="vfio"),
        {"dt_path": "dma1", "policy": "no_autobind"},
        {"compatible": "acme,crypto", "expect": 3, "policy": "vfio"},
        {"compatible": "*", "policy": "vfio", "driver": "uio"},
        {"name": "b008000.blob", "policy": "vfio", "tag": "x"},
        {"dt_path": "/soc/blob@b008000", "policy": "no_autobind"},
        BUSY,
        {"dt_path": "/soc/off@1", "policy": "vfio"},
        {"compatible": "acme,mac", "policy": "no_autobind", "tag": "t"},
    ]
    sentences = refused(devices, reset_required=False, vfio_group="nobodies", vfio_mode="9")
    words = [
        "name 'a/b' is not a valid device name",
        "b002000.dma) has no IOMMU group",
        "is claimed by this list and by driverctl",
        "but expect is 3",
        "compatible '*' is not valid",
        "Driver 'uio' requires policy driver",
        "Two entries claim /soc/blob@b008000",
        "is in use: watchdog7",
        "its status is 'disabled'",
        "Tag 't' requires policy vfio",
        "`vfio_mode` '9' is not a valid mode",
        "was not written by this collection",
    ]
    assert all(word in sentence for word, sentence in zip(words, sentences)), sentences
    assert len(sentences) == len(words)


def test_so_it_is_for_the_next_boot_alone(board: Board, refused: Callable[..., list[str]]) -> None:
    board.host.files.write_atomic("/etc/driverctl.d/platform-b003000.dma", "none\n")
    devices = [
        {"name": "b002000.dma", "policy": "driver", "driver": "acme"},
        {"dt_path": "crypto_x", "policy": "vfio"},
        {"dt_path": "dma1", "policy": "no_autobind"},
        CRYPTO,
        {"compatible": "acme,crypto", "policy": "no_autobind"},
        {"name": "a/b", "policy": "vfio"},
    ]
    sentences = refused(devices, runtime=False)
    words = [
        "on the platform bus it is called acme-crypto or",
        "cannot be resolved without this machine's device tree",
        "is claimed by this list and by driverctl",
        "Two entries claim /soc/crypto@b000000",
        "name 'a/b' is not a valid device name",
    ]
    assert all(word in sentence for word, sentence in zip(words, sentences)), sentences
    assert len(sentences) == len(words)


@pytest.mark.parametrize("module", ["vfio_binding", "no_autobind", "driver_override"])
def test_the_small_modules_and_info_tell_all_as_well(
    refused: Callable[..., list[str]], module: str
) -> None:
    devices = [{"dt_path": "/soc/off@1"}, {"name": "a/b"}, {"compatible": "acme,gone"}]
    options = {"driver": "uio"} if module == "driver_override" else {}
    words = ["status is 'disabled'", "'a/b' is not", "no device of a supported bus"]
    sentences = refused(devices, module, **options)
    assert all(word in sentence for word, sentence in zip(words, sentences)), sentences
    assert len(sentences) == 3
    assert len(refused(devices, "device_info")) == 3


def test_a_name_that_is_no_drivers_does_not_hide_entries_that_are_none(
    refused: Callable[..., list[str]],
) -> None:
    sentences = refused([{"name": "a/b"}], "driver_override", driver="x/y")
    assert len(sentences) == 2


def test_a_device_of_a_wrong_entry_is_not_taken_for_one_that_the_list_gives_up(
    board: Board, refused: Callable[..., list[str]]
) -> None:
    board.apply([CRYPTO, AMBA], reset_required=False)
    board.process(77, "vmm", "/dev/vfio/1")
    board.kernel.writes.clear()
    (sentence,) = refused([AMBA])
    assert "/soc/crypto@b000000" in sentence
    assert "held open by" in sentence
    (sentence,) = refused([{"compatible": "acme,krypto", "policy": "vfio"}, AMBA])
    assert "'acme,krypto' matches no device" in sentence


def test_the_sibling_of_a_wrong_entry_is_not_told_to_be_in_the_way(
    board: Board, refused: Callable[..., list[str]]
) -> None:
    kernel = board.kernel
    for name, compatible in (("b015000.pair", "acme,pair-a"), ("b016000.pair", "acme,pair-b")):
        kernel.register(Driver(compatible.replace(",", "-"), compatible=(compatible,)))
        path = "/soc/pair@" + name[:7]
        kernel.add_device(name, path, (compatible,), iommus=True, group="9")
    given = {"compatible": "acme,pair-a", "policy": "vfio"}
    (sentence,) = refused([given], reset_required=False)
    assert "cannot be opened by VFIO" in sentence
    wrong = {"compatible": "acme,pear-b", "policy": "vfio"}
    (sentence,) = refused([given, wrong], reset_required=False)
    assert "'acme,pear-b' matches no device" in sentence


@pytest.mark.parametrize(
    ("selector", "reason"),
    [
        (
            {"compatible": "acme,off"},
            (
                "but it is listed by a node of the device tree: /soc/off@1: its node exists, "
                "but its status is 'disabled', so the kernel creates no device for it"
            ),
        ),
        (
            {"compatible": "fsl,dspi"},
            (
                "but it is listed by 6 nodes of the device tree: /soc/spi@0, /soc/spi@1, "
                "/soc/spi@2, /soc/spi@3 and 2 more: its node exists, but its status is 'disabled'"
            ),
        ),
        ({"compatible": "acme,pmic"}, "/i2c/pmic@1b: its device is 0-001b on the i2c bus"),
        (
            {"compatible": "acme,sensor"},
            (
                "/soc/i2c@5/sensor@50: its node exists, but its parent /soc/i2c@5 is not a "
                "bus for whose children the kernel creates devices (simple-bus, simple-mfd); only "
                "the parent's driver could, and platform device b005000.i2c is not bound to a "
                "driver"
            ),
        ),
        (
            {"compatible": "acme,port"},
            (
                "only the parent's driver could, and platform device b00a000.eth is bound to "
                "acme-mac, which created none"
            ),
        ),
        (
            {"compatible": "acme,other"},
            "only the parent's driver could, and the parent has no device",
        ),
        ({"compatible": "acme,intc"}, "as for interrupt controllers"),
        ({"dt_path": "spi0"}, "it resolves to /soc/spi@0, and its node exists, but its status is"),
        ({"name": "0-001b"}, "its device is 0-001b on the i2c bus; this collection"),
        ({"name": "b002000.dma", "bus": "amba"}, "its device is on the platform bus"),
        ({"acpi_hid": "LNRO0005"}, "this machine did not boot with ACPI; use dt_path"),
        ({"acpi_path": "\\_SB_.VR00"}, "this machine did not boot with ACPI"),
    ],
)
def test_it_is_told_why_a_selector_of_any_kind_has_no_device(
    board: Board, refused: Callable[..., list[str]], selector: dict[str, Any], reason: str
) -> None:
    kernel = board.kernel
    for number in range(6):
        kernel.add_node(f"/soc/spi@{number}", ("fsl,lx-dspi", "fsl,dspi"), status="disabled")
    kernel.add_alias("spi0", "/soc/spi@0")
    kernel.add_node("/i2c/pmic@1b", ("acme,pmic",))
    kernel.add_foreign_device("i2c", "0-001b", "/i2c/pmic@1b")
    kernel.add_device("b005000.i2c", "/soc/i2c@5", ("acme,i2c",))
    kernel.add_node("/soc/i2c@5/sensor@50", ("acme,sensor",))
    kernel.add_node("/soc/eth@b00a000/port", ("acme,port",))
    kernel.add_node("/lone", ("acme,lone",))
    kernel.add_node("/lone/other", ("acme,other",))
    kernel.add_node("/intc", ("acme,intc",))
    (sentence,) = refused([{**selector, "policy": "no_autobind"}])
    assert reason in sentence
    assert sentence.endswith("If the device may be missing, set `required: false`")


@pytest.mark.parametrize(
    ("selector", "reason"),
    [
        ({"acpi_hid": "ACME0001"}, "\\_SB_.OFF0: its _STA is 0 (not present), so the kernel"),
        ({"acpi_path": "\\_SB_.OFF0"}, "\\_SB_.OFF0: its _STA is 0 (not present), so the kernel"),
        ({"acpi_hid": "ACME0002"}, "\\_SB_.DIS0: its _STA is 13 (not enabled)"),
        ({"acpi_hid": "ACME0003"}, "\\_SB_.PNP0: its device is 00:01 on the pnp bus"),
        ({"acpi_hid": "ACME0004"}, "\\_SB_.NON0: the kernel created no device for it"),
        ({"acpi_hid": "ACME0009"}, "it; 'cat /sys/bus/acpi/devices/*/hid' lists them"),
        ({"compatible": "acme,dma"}, "this machine did not boot with a device tree"),
    ],
)
def test_with_acpi_it_is_told_what_is_switched_off_or_on_another_bus(
    board: Board, refused: Callable[..., list[str]], selector: dict[str, Any], reason: str
) -> None:
    kernel = board.kernel
    kernel.remove(f"{TREE}/compatible")
    for name, path, status in (
        ("ACME0001", "\\_SB_.OFF0", "0\n"),
        ("ACME0002", "\\_SB_.DIS0", "13\n"),
        ("ACME0003", "\\_SB_.PNP0", "15\n"),
        ("ACME0004", "\\_SB_.NON0", None),
    ):
        home = f"devices/LNXSYSTM:00/{name}:00"
        kernel.point(f"bus/acpi/devices/{name}:00", home)
        kernel.put(f"{home}/hid", name + "\n")
        kernel.put(f"{home}/path", path + "\n")
        if status:
            kernel.put(f"{home}/status", status)
    kernel.put("devices/pnp0/00:01/uevent", "")
    kernel.point("devices/pnp0/00:01/subsystem", "bus/pnp")
    kernel.point("devices/LNXSYSTM:00/ACME0003:00/physical_node", "devices/pnp0/00:01")
    # Without of_node, the devices are found in /sys only, not by a node of the device tree.
    for name in kernel.names("bus/platform/devices"):
        kernel.remove(f"devices/platform/{name}/of_node")
    (sentence,) = refused([{**selector, "policy": "no_autobind"}])
    assert reason in sentence
