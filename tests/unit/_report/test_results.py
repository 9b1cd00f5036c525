"""Results have the documented types; an unset value is null and never a string."""

from __future__ import annotations

import json

from board import CRYPTO, DMA, LIST, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import (
    MODPROBE,
    MODULES_LOAD,
    RULES,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._report import device_info, results

DEVICE = {
    "name",
    "bus",
    "dt_path",
    "compatible",
    "acpi_path",
    "acpi_hid",
    "acpi_uid",
    "pci_id",
    "driver",
    "driver_override",
    "iommu_group",
    "vfio_nodes",
    "before",
    "after",
    "changed",
    "steps",
}


def test_a_result_has_the_promised_keys_and_is_json(board: Board) -> None:
    result = results.result(board.apply(LIST, reset_required=False))
    assert set(result) == {
        *("changed", "devices", "diff", "host_steps", "interrupted", "skipped_entries")
    }
    assert all(set(device) == DEVICE for device in result["devices"])
    assert json.loads(json.dumps(result)) == result


def test_devices_come_in_the_lists_order(board: Board) -> None:
    result = results.result(board.apply([DMA, CRYPTO], reset_required=False))
    assert [device["name"] for device in result["devices"]] == ["b002000.dma", "b000000.crypto"]


def test_one_device_is_told_whole(board: Board) -> None:
    (device,) = results.result(board.apply([DMA]))["devices"]
    assert device == {
        "name": "b002000.dma",
        "bus": "platform",
        "dt_path": "/soc/dma@b002000",
        "compatible": ["acme,dma"],
        "acpi_path": None,
        "acpi_hid": None,
        "acpi_uid": None,
        "pci_id": None,
        "driver": None,
        "driver_override": "none",
        "iommu_group": None,
        "vfio_nodes": [],
        "before": {"driver": "acme-dma", "driver_override": None},
        "after": {"driver": None, "driver_override": "none"},
        "changed": True,
        "steps": ["set driver_override to none (was unset)", "unbind from acme-dma"],
    }


def test_the_steps_of_a_device_for_vfio_are_told_in_words(board: Board) -> None:
    outcome = board.apply([CRYPTO], reset_required=False)
    result = results.result(outcome)
    assert result["devices"][0]["steps"] == [
        "set driver_override to vfio-platform (was unset)",
        "unbind from acme-crypto",
        "bind to vfio-platform",
        "link its nodes in /dev/vfio as by-path/soc:crypto@b000000",
    ]
    assert result["host_steps"] == ["load module vfio-platform with reset_required=N"]


def test_unset_is_null_and_never_the_kernels_text_for_it(board: Board) -> None:
    outcome = board.apply(LIST, reset_required=False)
    result = {**results.result(outcome), "diff": None}
    assert "(null)" not in json.dumps(result)
    assert "(null)" not in json.dumps(device_info.inspections(board.inspect(None)))


def test_the_diff_has_a_part_for_devices_modules_and_each_file(board: Board) -> None:
    diff = results.result(board.apply(LIST, reset_required=False))["diff"]
    headers = [part["after_header"] for part in diff]
    assert headers == ["devices", "kernel modules", RULES, MODPROBE, MODULES_LOAD]
    assert all(part["before_header"] == part["after_header"] for part in diff)
    assert all(part["before"] != part["after"] for part in diff)


def test_the_diff_leaves_out_what_stays(board: Board) -> None:
    board.apply([CRYPTO], reset_required=False)
    (devices, *_files) = results.result(board.apply([CRYPTO, DMA], reset_required=False))["diff"]
    assert "b002000.dma" in devices["after"]
    assert "b000000.crypto" not in devices["after"]


def test_boot_files_are_told_with_their_state(board: Board) -> None:
    first = board.apply([CRYPTO], reset_required=False)
    assert results.boot_files(first) == [
        {"path": path, "changed": True, "state": "present"}
        for path in (RULES, MODPROBE, MODULES_LOAD)
    ]
    last = board.apply([])
    assert [file["state"] for file in results.boot_files(last)] == ["absent"] * 3
    again = board.apply([])
    assert [file["changed"] for file in results.boot_files(again)] == [False] * 3
    assert results.boot_files(board.apply([], persistent=False)) == []


ABOUT = {
    "sriov_numvfs",
    "sriov_totalvfs",
    "candidate",
    "why_not",
    "entry",
    "settings",
    "iommu_group_devices",
    "reset_function",
    "isolated_interrupts",
    "module_configuration",
    "bound_by",
    "in_use_by",
    "lost_at_boot",
    "claimed_by",
    "desired",
    "drift",
    "driverctl",
    "kernel_command_line",
    "links",
    "next_boot",
    "foreign_rules",
}


def test_info_on_a_device_has_the_promised_keys(board: Board) -> None:
    board.kernel.put("devices/platform/b002000.dma/net/eth0/flags", "0x1003\n")
    reported_of = device_info.inspections(board.inspect(None))
    assert set(reported_of) == {
        *("board", "boot_files", "devices", "driverctl_notes", "kernels", "lost_entries"),
        *("policy_digest", "policy_list", "reboot_required", "rollout", "rollouts"),
        "rollouts_problem",
        *("skipped_entries", "vfio_support"),
    }
    devices = {device["name"]: device for device in reported_of["devices"]}
    promised = DEVICE - {"before", "after", "changed", "steps"}
    for reported in devices.values():
        assert set(reported) == promised | ABOUT
        assert set(reported["next_boot"]) == {
            *("driver", "driver_override", "known", "reason", "in_drift")
        }
    assert devices["b002000.dma"]["in_use_by"] == [
        {
            "kind": "network",
            "subject": "eth0",
            "message": "network interface eth0 is up",
        }
    ]
