"""Modules called as Ansible does: they take arguments and print one JSON result."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Callable, Dict, Iterator

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from board import AMBA, CRYPTO, DMA, LIST, Board
from simulated_kernel import NOIOMMU, TREE

from ansible_collections.armfleet.vfio.plugins.module_utils._apply.operations import UndoRecord
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import RULES
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._report import state_module
from tests.harness.modules import MODULES, run_on

Call = Callable[..., Dict[str, Any]]
ONE = [{"name": "b000000.crypto"}]
VFIO = ("vfio-platform", "vfio-platform")
NATIVE = ("acme-crypto", None)


@pytest.fixture
def call(board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs a module with keyword arguments and returns its JSON."""
    run_on(board, monkeypatch)

    def run(module: str, *, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
        arguments["_ansible_check_mode"] = check_mode
        board.kernel.writes.clear()
        with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
            MODULES[module].main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert bool(ended.value.code) == bool(answer.get("failed"))
        return answer

    return run


def test_host_policy_applies_a_list_and_tells_of_files(board: Board, call: Call) -> None:
    result = call("host_policy", devices=LIST, reset_required=False)
    assert result["changed"]
    assert board.kernel.binding("b000000.crypto") == VFIO
    assert result["boot_files"][0] == {"path": RULES, "changed": True, "state": "present"}
    assert "initramfs_command" in result
    assert not call("host_policy", devices=LIST, reset_required=False)["changed"]


@pytest.mark.parametrize("module", ["device_info", "host_policy"])
def test_names_of_processes_and_firmware_come_out_printable(
    board: Board, call: Call, module: str
) -> None:
    name = b"eve\x1b]0;x\x07\xff\xc2\x9b2J\xe2\x80\xae"
    board.kernel.put(f"{TREE}/soc/crypto@b000000/compatible", name + b"\0acme,crypto\0")
    board.kernel.put("devices/platform/b000000.crypto/tty/ttyX0/dev", "4:64\n")
    board.process(12, os.fsdecode(name), "/dev/ttyX0")
    arguments = {"devices": [CRYPTO]} if module == "host_policy" else {"devices": ONE}
    answer = call(module, **arguments)
    shown = r"eve\x1b]0;x\x07\xff\x9b2J\u202e"
    assert shown in json.dumps(answer, ensure_ascii=False).replace("\\\\", "\\")
    lines = [line for text in texts_in(answer) for line in text.split("\n")]
    assert not [line for line in lines if not line.isprintable()]


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in [*value, *(value.values() if isinstance(value, dict) else ())]:
            yield from texts_in(item)


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_directories_on_the_way_have_the_same_mode_whoever_runs_it(
    board: Board, call: Call, umask: int
) -> None:
    (board.files_root / "etc/modules-load.d").rmdir()
    before = os.umask(umask)
    try:
        call("host_policy", devices=LIST, reset_required=False, rollout="first")
    finally:
        os.umask(before)
    for directory in ("etc/modules-load.d", "var/lib/armfleet-vfio"):
        assert (board.files_root / directory).stat().st_mode & 0o7777 == 0o755


def test_host_policy_in_check_mode_touches_nothing(board: Board, call: Call) -> None:
    before = board.everything()
    assert call("host_policy", check_mode=True, devices=LIST, reset_required=False)["changed"]
    assert board.everything() == before


@pytest.mark.parametrize(
    "arguments", [{"devices": []}, {"state": "absent"}, {"state": "absent", "devices": LIST}]
)
def test_host_policy_gives_all_back_for_an_empty_list_or_absent(
    board: Board, call: Call, arguments: dict[str, Any]
) -> None:
    native = board.kernel.bindings()
    call("host_policy", devices=LIST, reset_required=False)
    assert call("host_policy", **arguments)["changed"]
    assert board.kernel.bindings() == native
    assert board.file(RULES) is None


def test_host_policy_gives_access_to_nodes(board: Board, call: Call) -> None:
    call("host_policy", devices=[CRYPTO], reset_required=False, vfio_mode="0660")
    assert set(board.nodes().values()) == {"0660"}


@pytest.mark.parametrize("mode", ["0666", "0604", "0662"])
def test_a_mode_for_every_user_needs_a_word_of_its_own(board: Board, call: Call, mode: str) -> None:
    asked = {"devices": [CRYPTO], "reset_required": False, "vfio_mode": mode}
    result = call("host_policy", **asked)
    assert "set `unsafe_vfio_mode: true`" in result["msg"]
    assert board.kernel.binding("b000000.crypto") == NATIVE
    call("host_policy", **asked, unsafe_vfio_mode=True)
    assert set(board.nodes().values()) == {mode}
    assert "changed" in call("host_policy", state="absent", vfio_mode=mode)


@pytest.mark.parametrize("mode", [0o660, 660, 0o640, 640, 0o644, 0, "432", "640", "u=rw"])
def test_a_mode_that_yaml_made_a_number_of_is_refused(
    board: Board, call: Call, mode: str | int
) -> None:
    result = call("host_policy", devices=[CRYPTO], vfio_mode=mode)
    assert "Give it in octal and in quotes" in result["msg"]
    assert board.kernel.binding("b000000.crypto") == NATIVE


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        ("host_policy", {}, "devices"),
        ("host_policy", {"devices": [], "runtime": False, "persistent": False}, "nothing to do"),
        ("host_policy", {"devices": [{"name": "x", "policy": "driver"}]}, "driver"),
        ("host_policy", {"devices": [{"policy": "vfio"}]}, "one of the following"),
        ("host_policy", {"devices": [{"name": "x", "policy": "other"}]}, "must be one of"),
        ("host_policy", {"devices": [CRYPTO], "allow": ["all"]}, "must be one or more of"),
        ("host_policy", {"devices": [{**CRYPTO, "name": "x"}]}, "mutually exclusive"),
        ("driver_override", {"devices": [], "state": "absent"}, "`devices` is empty"),
        ("driver_override", {"devices": [], "driver": "x"}, "`devices` is empty"),
        ("driver_override", {"devices": ONE}, "driver"),
        ("driver_override", {"devices": ONE, "driver": "a/b"}, "is not a valid driver name"),
        ("no_autobind", {"devices": []}, "`devices` is empty"),
        ("no_autobind", {}, "missing required arguments: devices"),
        ("vfio_binding", {"devices": []}, "`devices` is empty"),
        ("vfio_binding", {"devices": [{"name": "../x"}]}, "without patterns or paths"),
        ("vfio_binding", {"devices": ONE, "timeout": 0}, "1 or more"),
        ("vfio_binding", {"devices": ONE, "timeout": -5}, "1 or more"),
        ("device_info", {"devices": [{"name": "gone"}]}, "matches no device"),
        ("device_info", {"devices": [{"name": "a*"}]}, "without patterns"),
    ],
)
def test_bad_arguments_are_refused_with_a_sentence_and_nothing_is_touched(
    board: Board, call: Call, module: str, arguments: dict[str, Any], words: str
) -> None:
    before = board.everything()
    result = call(module, **arguments)
    assert result["failed"]
    assert words in result["msg"]
    assert "Traceback" not in json.dumps(result)
    assert board.everything() == before


def test_an_error_in_the_middle_is_a_sentence_and_no_traceback(board: Board, call: Call) -> None:
    board.kernel.answer("bus/platform/drivers/acme-crypto/unbind", 5)
    result = call("vfio_binding", devices=ONE, reset_required=False)
    assert result["failed"]
    assert "EIO" in result["msg"]
    assert "Nothing was changed" in result["msg"]
    assert board.kernel.binding("b000000.crypto") == NATIVE


NO_SUCH_DEVICE: dict[str, dict[str, Any]] = {
    "host_policy": {"devices": [{"name": "gone", "policy": "vfio"}]},
    "driver_override": {"devices": [{"name": "gone"}], "driver": "x"},
    "no_autobind": {"devices": [{"name": "gone"}]},
    "vfio_binding": {"devices": [{"name": "gone"}]},
    "device_info": {"devices": [{"name": "gone"}]},
}
OPTIONS = {**NO_SUCH_DEVICE, "initramfs": {}, "last_answer": {"request_digest": "x"}}


@pytest.mark.parametrize("module", OPTIONS)
def test_an_old_python_is_told_what_is_needed(
    call: Call, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 7, 17, "final", 0))
    result = call(module, **OPTIONS[module])
    assert result["failed"]
    assert "needs Python 3.8 or later" in result["msg"]
    assert "3.7" in result["msg"]
    assert "ansible_python_interpreter" in result["msg"]


@pytest.mark.parametrize("module", NO_SUCH_DEVICE)
def test_sys_is_closed_however_a_call_ends(
    board: Board, call: Call, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(board.kernel, "close", lambda: closed.append(True))
    assert call(module, **NO_SUCH_DEVICE[module])["failed"]
    assert closed == [True]


def test_the_time_limit_is_for_writes_and_for_modprobe(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []

    def host(timeout: int) -> None:
        limits.append(timeout)
        raise PolicyError("enough")

    monkeypatch.setattr(state_module, "open_host", host)
    for arguments in ({}, {"timeout": 7}):
        with patch_module_args({"devices": ONE, **arguments}), pytest.raises(PolicyError):
            MODULES["vfio_binding"].main()
    assert limits == [30, 7]


def test_an_interrupted_run_is_said(board: Board, call: Call) -> None:
    board.journal("the other").append(UndoRecord("noiommu", "vfio", {"value": "N"}))
    checked = call("vfio_binding", devices=ONE, reset_required=False, check_mode=True)
    (sentence,) = checked["interrupted"]
    assert "the other" in sentence
    assert "The next run rolls back its changes first" in sentence


def test_driver_override_sets_the_override_and_nothing_else(board: Board, call: Call) -> None:
    result = call("driver_override", devices=ONE, driver="vfio-platform")
    assert board.kernel.binding("b000000.crypto") == ("acme-crypto", "vfio-platform")
    assert len(board.kernel.writes) == 1
    assert not board.kmod.calls
    assert result["devices"][0]["driver_override"] == "vfio-platform"
    assert not call("driver_override", devices=ONE, driver="vfio-platform")["changed"]
    assert not board.kernel.writes


def test_driver_override_takes_a_driver_that_is_not_there_yet(board: Board, call: Call) -> None:
    call("driver_override", devices=ONE, driver="later")
    assert board.kernel.binding("b000000.crypto") == ("acme-crypto", "later")


def test_driver_override_rebinds_if_asked(board: Board, call: Call) -> None:
    call("driver_override", devices=ONE, driver="acme-dma-uio", rebind=True)
    assert board.kernel.binding("b000000.crypto") == ("acme-dma-uio", "acme-dma-uio")
    assert board.file(RULES) is None


def test_driver_override_to_vfio_with_rebind_loads_its_module(board: Board, call: Call) -> None:
    board.kernel.reset_functions.add("acme,crypto-v1")
    call("driver_override", devices=ONE, driver="vfio-platform", rebind=True)
    assert board.kernel.binding("b000000.crypto") == VFIO


@pytest.mark.parametrize(("rebind", "driver"), [(False, "acme-dma-uio"), (True, "acme-crypto")])
def test_driver_override_clears_whatever_the_override_was(
    board: Board, call: Call, rebind: bool, driver: str
) -> None:
    call("driver_override", devices=ONE, driver="acme-dma-uio", rebind=True)
    call("driver_override", devices=ONE, state="absent", rebind=rebind)
    assert board.kernel.binding("b000000.crypto") == (driver, None)
    assert not call("driver_override", devices=ONE, state="absent", rebind=rebind)["changed"]


def test_no_autobind_takes_the_driver_and_gives_it_back(board: Board, call: Call) -> None:
    call("no_autobind", devices=ONE)
    assert board.kernel.binding("b000000.crypto") == (None, "none")
    assert not call("no_autobind", devices=ONE)["changed"]
    call("no_autobind", devices=ONE, state="absent")
    assert board.kernel.binding("b000000.crypto") == NATIVE
    assert not call("no_autobind", devices=ONE, state="absent")["changed"]


def test_no_autobind_can_leave_the_driver_for_now(board: Board, call: Call) -> None:
    call("no_autobind", devices=ONE, unbind=False)
    assert board.kernel.binding("b000000.crypto") == ("acme-crypto", "none")
    call("no_autobind", devices=ONE, state="absent")
    assert board.kernel.binding("b000000.crypto") == NATIVE


def test_no_autobind_absent_leaves_another_ones_override(board: Board, call: Call) -> None:
    call("vfio_binding", devices=ONE, reset_required=False)
    assert not call("no_autobind", devices=ONE, state="absent")["changed"]
    assert board.kernel.binding("b000000.crypto") == VFIO


def test_vfio_binding_binds_and_releases(board: Board, call: Call) -> None:
    result = call("vfio_binding", devices=ONE, reset_required=False)
    assert board.kernel.binding("b000000.crypto") == VFIO
    assert result["devices"][0]["vfio_nodes"]
    assert not call("vfio_binding", devices=ONE, reset_required=False)["changed"]
    call("vfio_binding", devices=ONE, state="released")
    assert board.kernel.binding("b000000.crypto") == NATIVE
    assert not call("vfio_binding", devices=ONE, state="released")["changed"]


@pytest.mark.parametrize(
    ("driver", "override"),
    [("acme-crypto", "acme-crypto"), ("acme-dma-uio", "acme-dma-uio"), (None, "none")],
)
def test_vfio_binding_released_leaves_what_others_set_up(
    board: Board, call: Call, driver: str | None, override: str
) -> None:
    call("driver_override", devices=ONE, driver=override, rebind=driver is not None)
    if driver is None:
        board.kernel.write("bus/platform/drivers/acme-crypto/unbind", "b000000.crypto")
    assert not call("vfio_binding", devices=ONE, state="released")["changed"]
    assert board.kernel.binding("b000000.crypto") == (driver, override)


def test_the_small_modules_leave_the_boot_files_and_other_devices_alone(
    board: Board, call: Call
) -> None:
    call("host_policy", devices=[DMA, AMBA])
    before = {key: value for key, value in board.everything().items() if "host/etc" in key}
    call("vfio_binding", devices=ONE, reset_required=False)
    call("vfio_binding", devices=ONE, state="released")
    after = {key: value for key, value in board.everything().items() if "host/etc" in key}
    assert after == before
    assert board.kernel.binding("b002000.dma") == (None, "none")
    assert board.kernel.binding("b008000.blob") == ("vfio-amba", "vfio-amba")


def test_the_small_modules_take_all_devices_or_none(board: Board, call: Call) -> None:
    devices = [{"compatible": "acme,crypto"}, {"name": "b002000.dma"}]
    native = board.kernel.bindings()
    assert call("vfio_binding", devices=devices, reset_required=False)["failed"]
    assert board.kernel.bindings() == native


def test_device_info_reads_and_writes_nothing(board: Board, call: Call) -> None:
    before = board.everything()
    result = call("device_info")
    assert not result["changed"]
    assert [device["name"] for device in result["devices"]] == [
        "b000000.crypto",
        "b001000.crypto",
        "b002000.dma",
        "b003000.dma",
        "b004000.ethernet",
        "soc:keys",
        "b008000.blob",
    ]
    assert len(call("device_info", devices=[{"compatible": "acme,crypto"}])["devices"]) == 2
    assert call("device_info", devices=[])["devices"] == []
    assert board.everything() == before
    assert not board.kernel.writes


PLAIN = [{"name": "b002000.dma"}]


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the warnings of modules; Ansible's own list is shared by the whole process."""
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, text: warnings.append(text))
    return warnings


@pytest.mark.parametrize("unsafe_noiommu", [None, False])
def test_vfio_binding_released_turns_noiommu_off_if_asked_and_else_says_that_it_stays(
    board: Board, call: Call, warned: list[str], unsafe_noiommu: bool | None
) -> None:
    call("vfio_binding", devices=PLAIN, reset_required=False, unsafe_noiommu=True)
    result = call("vfio_binding", devices=PLAIN, state="released", unsafe_noiommu=unsafe_noiommu)
    is_on = unsafe_noiommu is None
    assert board.kernel.read(NOIOMMU) == ("Y" if is_on else "N")
    kept = [setting for setting in result["kept_settings"] if "unsafe_noiommu: false" in setting]
    assert len(kept) == is_on
    assert warned == kept
    again = call("vfio_binding", devices=PLAIN, state="released", unsafe_noiommu=unsafe_noiommu)
    assert not again["changed"]
    assert warned == kept


def test_host_policy_warns_where_noiommu_stays_on(
    board: Board, call: Call, warned: list[str]
) -> None:
    board.kernel.reset_functions.add("acme,dma")
    board.kmod.load("vfio-platform")
    board.kernel.write(NOIOMMU, "Y")
    call("host_policy", devices=[dict(PLAIN[0], policy="vfio")], unsafe_noiommu=True)
    result = call("host_policy", state="absent")
    (kept,) = result["kept_settings"]
    assert "it was Y before" in kept
    assert warned == [kept]
