"""For a device with an override of driverctl, a run fails or takes over; a failure is undone."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

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
def foreign(board: Board) -> Board:
    """The board with the file that 'driverctl --bus platform set-override' writes."""
    (board.files_root / "etc/driverctl.d").mkdir()
    board.write_file(FILE, "vfio-platform\n")
    board.write_file(OTHER, "none\n")
    return board


def notes(board: Board) -> list[str]:
    return device_info.inspections(board.inspect(None))["driverctl_notes"]


def stored(root: Path, **contents: str) -> list[driverctl.Stored]:
    """Return what is read of files with these contents."""
    directory = root / driverctl.DIRECTORY[1:]
    directory.mkdir(parents=True)
    for name, content in contents.items():
        (directory / name).write_text(content)
    return driverctl.stored(Files(str(root)))


def test_devices_of_our_buses_are_read_and_empty_files_are_not(tmp_path: Path) -> None:
    contents = {
        "amba-9030000.pl061": "none\n",
        "fsl-mc-dprc.2": "vfio-fsl-mc\n",
        "mdio_bus-stmmac-0:01": "none\n",
        "pci-0000:00:01.0": "vfio-pci\n",
        "platform": "x\n",
        "platform-": "x\n",
        "platform-empty": "",
        "platform-soc:a-b": "acme-dma-uio",
    }
    assert [
        (entry.bus, entry.name, entry.policy and entry.policy.label)
        for entry in stored(tmp_path, **contents)
    ] == [
        ("amba", "9030000.pl061", "no_autobind"),
        ("fsl-mc", "dprc.2", "vfio"),
        ("pci", "0000:00:01.0", "vfio"),
        ("platform", "soc:a-b", "driver acme-dma-uio"),
    ]


@pytest.mark.parametrize(
    ("content", "override"),
    [
        ("vfio-platform", "vfio-platform"),
        ("vfio-platform\n", "vfio-platform"),
        ("vfio-platform\n\n\n", "vfio-platform"),
        ("vfio\0-platform\n", "vfio-platform"),
        ("\n", ""),
        ("\n\n", ""),
        ("none\n", "none"),
    ],
)
def test_a_file_is_read_as_bash_reads_it(tmp_path: Path, content: str, override: str) -> None:
    (kept,) = stored(tmp_path, **{"platform-b000000.crypto": content})
    assert (kept.driver_override, kept.ignored) == (override, None)
    read = '[ -s "$0" ] && drv=$(< "$0") 2>/dev/null && printf "[%s]" "$drv"'
    path = tmp_path / kept.path[1:]
    assert subprocess.run(["bash", "-c", read, path], capture_output=True, check=True).stdout == (
        f"[{override}]".encode()
    )


@pytest.mark.parametrize(
    "content",
    [
        *("vfio-platform\nnone\n", "# mine\nvfio-platform\n", "\nvfio-platform\n"),
        *("vfio-platform \n", " vfio-platform\n", "vfio-platform\r\n", "a b\n", "\t\n"),
    ],
)
def test_what_is_no_name_of_a_module_is_not_applied(foreign: Board, content: str) -> None:
    """driverctl stops where "modprobe -q" fails with the whole content as the name."""
    foreign.write_file(FILE, content)
    assert not foreign.apply([], reset_required=False).is_changed
    crypto = foreign.info("b000000.crypto")
    assert crypto["driverctl"] is None
    assert crypto["next_boot"]["driver"] == "acme-crypto"
    assert crypto["next_boot"]["reason"].endswith(
        f"; driverctl does not apply {FILE}: its content is not the name of one module, so that "
        "modprobe fails"
    )
    assert foreign.apply([CRYPTO], reset_required=False).is_changed
    assert (foreign.files_root / FILE[1:]).read_bytes() == content.encode()


@pytest.mark.parametrize("name", ["soc:a-b", "fixed-mdio", "soc:x,y", "Fixed MDIO bus.0", "a!b"])
def test_a_device_that_driverctl_loses_at_boot_is_said_to_be_lost(
    foreign: Board, name: str
) -> None:
    """Of driverctl@BUS-NAME.service, %I has "/" for "-", and systemd escapes other characters."""
    path = f"{driverctl.DIRECTORY}/platform-{name}"
    foreign.write_file(path, "vfio-platform\n")
    foreign.kernel.add_device(name, "/soc/odd", ("acme,crypto",), iommus=True)
    odd = foreign.info(name)
    assert odd["next_boot"]["driver"] == "acme-crypto"
    assert f"; driverctl does not apply {path}: systemd " in odd["next_boot"]["reason"]
    (note,) = notes(foreign)
    assert note.startswith(f"{path} is not applied by driverctl at boot: systemd ")
    entry = odd["driverctl"]["entry"]
    assert entry == {"dt_path": "/soc/odd", "policy": "vfio"}
    assert foreign.apply([entry], reset_required=False).is_changed
    assert foreign.info(name)["next_boot"]["driver"] == "vfio-platform"
    assert foreign.file(path) == "vfio-platform\n"
    foreign.apply([entry], reset_required=False, takes_over=True)
    assert foreign.file(path) is None


def test_a_blank_file_gives_the_device_to_its_native_driver(foreign: Board) -> None:
    foreign.apply([CRYPTO], reset_required=False, takes_over=True)
    foreign.write_file(FILE, "\n")
    crypto = foreign.info("b000000.crypto")
    assert crypto["driverctl"]["entry"] == {"dt_path": "/soc/crypto@b000000", "policy": "default"}
    assert crypto["next_boot"]["driver"] == "acme-crypto"
    assert crypto["next_boot"]["reason"].startswith(
        f"driverctl clears its override after all rules ({FILE}); "
    )
    assert len(crypto["drift"]) == 1
    with pytest.raises(PolicyError, match=f"driverctl: {FILE} clears its override at each boot"):
        foreign.apply([CRYPTO], reset_required=False)
    foreign.apply([CRYPTO], reset_required=False, takes_over=True)
    assert foreign.file(FILE) is None


def test_a_directory_is_named_and_not_removed(foreign: Board) -> None:
    """ "test -s" is true of it, and "$(< file)" is empty."""
    path = foreign.files_root / FILE[1:]
    path.unlink()
    path.mkdir()
    (path / "content").touch()
    assert foreign.info("b000000.crypto")["next_boot"]["driver"] == "acme-crypto"
    for takes_over in (False, True):
        with pytest.raises(PolicyError, match="It is a directory, which driverctl reads as no"):
            foreign.apply([CRYPTO], reset_required=False, takes_over=takes_over)
    assert path.is_dir()


@pytest.mark.parametrize("kind", ["fifo", "dangling", "circle", "empty"])
def test_what_has_no_size_is_skipped_as_driverctl_skips_it(foreign: Board, kind: str) -> None:
    path = foreign.files_root / FILE[1:]
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    else:
        path.symlink_to("nowhere" if kind == "dangling" else path.name)
    assert foreign.info("b000000.crypto")["driverctl"] is None
    assert notes(foreign) == [f"{FILE} is empty or is no file, so driverctl ignores it"]
    assert foreign.apply([CRYPTO], reset_required=False).is_changed


@pytest.mark.parametrize("suffix", ["~", ".bak", ".orig", ".dpkg-old", ".rpmsave", ".swp"])
def test_a_backup_copy_is_of_no_device(foreign: Board, suffix: str) -> None:
    (foreign.files_root / FILE[1:]).rename(foreign.files_root / (FILE + suffix)[1:])
    assert foreign.info("b000000.crypto")["driverctl"] is None
    (note,) = notes(foreign)
    assert note == (
        f"{FILE}{suffix} is for the platform device b000000.crypto{suffix}, which this host does "
        "not have, so driverctl does not read it"
    )
    foreign.apply([CRYPTO], reset_required=False, takes_over=True)
    assert foreign.file(FILE + suffix) == "vfio-platform\n"


def test_files_of_other_buses_are_named_and_left_alone(foreign: Board) -> None:
    paths = [f"{driverctl.DIRECTORY}/{name}" for name in ("README", "mdio_bus-a:01", "usb-1-1")]
    for path in paths:
        foreign.write_file(path, "none\n")
    assert notes(foreign) == [
        f"{path} is not for a device of a bus that this collection supports, so it is left to "
        "driverctl"
        for path in paths
    ]
    foreign.apply([CRYPTO, DMA], reset_required=False, takes_over=True)
    assert [foreign.file(path) for path in paths] == ["none\n"] * 3


def test_a_driver_whose_module_has_another_name_is_not_applied(foreign: Board) -> None:
    """driverctl asks modprobe for a module of the driver's name and stops if there is none."""
    foreign.write_file("/etc/driverctl.d/platform-b003000.dma", "acme-dma-uio\n")
    after = foreign.info("b003000.dma")["next_boot"]
    assert after["driver"] == "acme-dma"
    assert "has no module acme-dma-uio" in after["reason"]


@pytest.mark.parametrize("driver", ["vfio-pci", "mlx5_vfio_pci"])
def test_a_function_keeps_the_vfio_driver_that_it_has(driver: str) -> None:
    stored = driverctl.Stored("", "pci", "0000:00:01.0", driver, driver)
    assert stored.policy == Policy(VFIO, vfio_driver=driver)


@pytest.mark.parametrize("runtime", [True, False])
def test_a_device_that_both_claim_stops_the_run_before_anything_is_touched(
    foreign: Board, runtime: bool
) -> None:
    crypto, dma = foreign.refused([CRYPTO, DMA], reset_required=False, runtime=runtime)
    assert crypto == (
        "/soc/crypto@b000000 (platform device b000000.crypto) is claimed by this list and by "
        f"driverctl: {FILE} sets vfio-platform at each boot, after the rules of this "
        "collection. Set `driverctl: take_over` to replace that file with the list, or remove the "
        "device from the list"
    )
    assert OTHER in dma


def test_what_does_not_last_and_what_is_given_back_is_no_clash(foreign: Board) -> None:
    foreign.apply([CRYPTO], reset_required=False, persistent=False)
    assert foreign.kernel.driver_of("b000000.crypto") == "vfio-platform"
    foreign.apply([])
    assert foreign.file(FILE) == "vfio-platform\n"


def test_a_list_takes_its_devices_over_and_leaves_the_others(foreign: Board) -> None:
    outcome = foreign.apply([CRYPTO], reset_required=False, takes_over=True)
    assert foreign.file(FILE) is None
    assert foreign.file(OTHER) == "none\n"
    assert {"path": FILE, "changed": True, "state": "absent"} in results.boot_files(outcome)
    assert not foreign.apply([CRYPTO], reset_required=False, takes_over=True).is_changed


def test_a_check_says_what_will_be_taken_over(foreign: Board) -> None:
    predicted = foreign.check([CRYPTO], reset_required=False, takes_over=True)
    assert FILE in [part["before_header"] for part in results.diff(predicted)]
    assert foreign.file(FILE) == "vfio-platform\n"


def test_a_run_that_fails_leaves_driverctl_its_file(
    foreign: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = StagedFile.commit

    def fail(staged: StagedFile) -> None:
        commit(staged)
        if staged.path == FILE and foreign.file(FILE) is None:
            raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(StagedFile, "commit", fail)
    before = foreign.everything()
    with pytest.raises((PolicyError, OSError)):
        foreign.apply([CRYPTO], reset_required=False, takes_over=True)
    assert foreign.everything() == before


def test_info_says_that_driverctl_has_the_last_word(foreign: Board) -> None:
    crypto = foreign.info("b000000.crypto")
    assert crypto["driverctl"] == {
        "path": FILE,
        "entry": {"dt_path": "/soc/crypto@b000000", "policy": "vfio"},
    }
    assert crypto["next_boot"] == {
        "driver": "vfio-platform",
        "driver_override": "vfio-platform",
        "known": True,
        "in_drift": True,
        "reason": f"driverctl sets it after all rules ({FILE})",
    }
    assert len(crypto["drift"]) == 1
    assert foreign.info("b001000.crypto")["driverctl"] is None


def test_a_device_that_shares_its_node_is_told_by_its_name(foreign: Board) -> None:
    foreign.kernel.add_device("crypto-dma.1", "/soc/crypto@b000000", ("acme,dma",))
    assert foreign.info("b000000.crypto")["driverctl"]["entry"] == {
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
    foreign: Board, nodes: dict[str, tuple[str, tuple[str]]], selector: dict[str, str]
) -> None:
    foreign.kernel.add_functions("0000:00:01.0 8086:10d3:8086:a01f 020000", nodes=nodes)
    foreign.write_file(f"{driverctl.DIRECTORY}/pci-0000:00:01.0", "none\n")
    entry = foreign.info("0000:00:01.0")["driverctl"]["entry"]
    assert entry == {**selector, "policy": "no_autobind"}


def test_a_name_with_spaces_is_that_of_a_file_that_driverctl_loses_at_boot(board: Board) -> None:
    name = "Fixed MDIO bus.0"
    board.kernel.add_device(name)
    path = f"/etc/driverctl.d/platform-{name}"
    (board.files_root / "etc/driverctl.d").mkdir()
    board.write_file(path, "acme-dma-uio\n")
    devices = board.devices()
    own = {"name": name, "bus": "platform", "policy": "driver", "driver": "acme-dma-uio"}
    assert devices[name]["driverctl"] == {"path": path, "entry": own}
    assert devices[name]["next_boot"]["driver"] is None
    entry = {"name": name, "policy": "no_autobind"}
    board.apply([entry])
    assert board.kernel.binding(name) == (None, "none")
    board.apply([entry], takes_over=True)
    assert board.file(path) is None
