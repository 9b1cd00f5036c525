"""For a device with an override of driverctl, a run fails or takes over; a failure is undone."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from board import CRYPTO, DMA, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import driverctl
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import VFIO, Policy
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info, results
from ansible_collections.armfleet.vfio.plugins.module_utils._system.file_writes import StagedFile
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files

FILE = "/etc/driverctl.d/platform-b000000.crypto"
OTHER = "/etc/driverctl.d/platform-b002000.dma"


@pytest.fixture
def rival(board: Board) -> Board:
    """The board with the file that 'driverctl --bus platform set-override' writes."""
    (board.files_root / "etc/driverctl.d").mkdir()
    board.write_file(FILE, "vfio-platform\n")
    board.write_file(OTHER, "none\n")
    return board


def info(board: Board, name: str) -> dict[str, Any]:
    devices = device_info.inspections(board.inspect(None))["devices"]
    (device,) = [candidate for candidate in devices if candidate["name"] == name]
    return device


def test_devices_of_our_buses_are_read_and_empty_files_are_not(tmp_path: Path) -> None:
    folder = tmp_path / driverctl.DIRECTORY[1:]
    folder.mkdir(parents=True)
    for name, content in {
        "amba-9030000.pl061": "none\n",
        "pci-0000:00:01.0": "vfio-pci\n",
        "platform-": "x\n",
        "platform-soc:a-b": "acme-dma-uio",
        "platform-empty": "\n",
    }.items():
        (folder / name).write_text(content)
    kept = driverctl.stored(Files(str(tmp_path)))
    assert [(entry.bus, entry.name, entry.policy.label) for entry in kept] == [
        ("amba", "9030000.pl061", "no_autobind"),
        ("pci", "0000:00:01.0", "vfio"),
        ("platform", "soc:a-b", "driver acme-dma-uio"),
    ]


@pytest.mark.parametrize("driver", ["vfio-pci", "mlx5_vfio_pci"])
def test_a_function_keeps_the_vfio_driver_that_it_has(driver: str) -> None:
    stored = driverctl.Stored("", "pci", "0000:00:01.0", driver, driver)
    assert stored.policy == Policy(VFIO, vfio_driver=driver)


@pytest.mark.parametrize("runtime", [True, False])
def test_a_device_that_both_claim_stops_the_run_before_anything_is_touched(
    rival: Board, runtime: bool
) -> None:
    before = rival.everything()
    with pytest.raises(PolicyError) as caught:
        rival.apply([CRYPTO, DMA], reset_required=False, runtime=runtime)
    assert rival.everything() == before
    crypto, dma = caught.value.problems
    assert crypto == (
        "/soc/crypto@b000000 (platform device b000000.crypto) is claimed by this list and by "
        f"driverctl: {FILE} sets vfio-platform at each boot, after the rules of this "
        "collection. Set `driverctl: take_over` to replace that file with the list, or remove the "
        "device from the list"
    )
    assert OTHER in dma


def test_what_does_not_last_and_what_is_given_back_is_no_clash(rival: Board) -> None:
    rival.apply([CRYPTO], reset_required=False, persistent=False)
    assert rival.kernel.driver_of("b000000.crypto") == "vfio-platform"
    rival.apply([])
    assert rival.file(FILE) == "vfio-platform\n"


def test_a_list_takes_its_devices_over_and_leaves_the_others(rival: Board) -> None:
    outcome = rival.apply([CRYPTO], reset_required=False, takes_over=True)
    assert rival.file(FILE) is None
    assert rival.file(OTHER) == "none\n"
    assert {"path": FILE, "changed": True, "state": "absent"} in results.boot_files(outcome)
    assert not rival.apply([CRYPTO], reset_required=False, takes_over=True).is_changed


def test_a_check_says_what_will_be_taken_over(rival: Board) -> None:
    predicted = rival.check([CRYPTO], reset_required=False, takes_over=True)
    assert FILE in [part["before_header"] for part in results.diff(predicted)]
    assert rival.file(FILE) == "vfio-platform\n"


def test_a_run_that_fails_leaves_driverctl_its_file(
    rival: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = StagedFile.commit

    def fail(staged: StagedFile) -> None:
        commit(staged)
        if staged.path == FILE and rival.file(FILE) is None:
            raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(StagedFile, "commit", fail)
    before = rival.everything()
    with pytest.raises((PolicyError, OSError)):
        rival.apply([CRYPTO], reset_required=False, takes_over=True)
    assert rival.everything() == before


def test_info_says_that_driverctl_has_the_last_word(rival: Board) -> None:
    crypto = info(rival, "b000000.crypto")
    assert crypto["driverctl"] == {
        "path": FILE,
        "entry": {"dt_path": "/soc/crypto@b000000", "policy": "vfio"},
    }
    assert crypto["next_boot"] == {
        "driver": "vfio-platform",
        "driver_override": "vfio-platform",
        "known": True,
        "reason": f"driverctl sets it after all rules ({FILE})",
    }
    assert len(crypto["drift"]) == 1
    assert info(rival, "b001000.crypto")["driverctl"] is None


def test_a_device_that_shares_its_node_is_told_by_its_name(rival: Board) -> None:
    rival.kernel.add_device("crypto-dma.1", "/soc/crypto@b000000", ("acme,dma",))
    assert info(rival, "b000000.crypto")["driverctl"]["entry"] == {
        "name": "b000000.crypto",
        "bus": "platform",
        "policy": "vfio",
    }


@pytest.mark.parametrize(
    ("nodes", "selector"),
    [
        ({}, {"pci_address": "0000:00:01.0", "pci_id": "8086:10d3"}),
        (
            {"0000:00:01.0": ("/pcie@10000000/ethernet@1,0", ("pci8086,10d3",))},
            {"dt_path": "/pcie@10000000/ethernet@1,0"},
        ),
    ],
)
def test_the_entry_for_a_function_means_no_other_card_at_its_address(
    rival: Board, nodes: dict[str, tuple[str, tuple[str]]], selector: dict[str, str]
) -> None:
    rival.kernel.add_functions("0000:00:01.0 8086:10d3:8086:a01f 020000", nodes=nodes)
    rival.write_file(f"{driverctl.DIRECTORY}/pci-0000:00:01.0", "none\n")
    entry = info(rival, "0000:00:01.0")["driverctl"]["entry"]
    assert entry == {**selector, "policy": "no_autobind"}


def test_a_name_with_spaces_is_that_of_a_file(board: Board) -> None:
    name = "Fixed MDIO bus.0"
    board.kernel.add_device(name)
    path = f"/etc/driverctl.d/platform-{name}"
    (board.files_root / "etc/driverctl.d").mkdir()
    board.write_file(path, "acme-dma-uio\n")
    entry = {"name": name, "policy": "no_autobind"}
    with pytest.raises(PolicyError, match="is claimed by this list and by driverctl"):
        board.apply([entry])
    devices = {
        device["name"]: device for device in device_info.inspections(board.inspect(None))["devices"]
    }
    own = {"name": name, "bus": "platform", "policy": "driver", "driver": "acme-dma-uio"}
    assert devices[name]["driverctl"] == {"path": path, "entry": own}
    board.apply([entry], takes_over=True)
    assert board.file(path) is None
    assert board.kernel.binding(name) == (None, "none")
