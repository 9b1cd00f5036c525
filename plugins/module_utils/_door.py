# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all modules share: argument specs, one run, result and failure."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Mapping

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.armfleet.vfio.plugins.module_utils import _report, _text
from ansible_collections.armfleet.vfio.plugins.module_utils._boot import check_access
from ansible_collections.armfleet.vfio.plugins.module_utils._call import (
    Host,
    Request,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._engine import Outcome, run
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import (
    PolicyError,
    Problems,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._kernel_log import KernelLog
from ansible_collections.armfleet.vfio.plugins.module_utils._kmod import Kmod
from ansible_collections.armfleet.vfio.plugins.module_utils._model import (
    ALWAYS,
    AUTO,
    DEFAULT,
    DRIVER,
    NEVER,
    NO_AUTOBIND,
    VFIO,
    Policy,
    VfioSettings,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._policies import (
    Entry,
    good_entries,
    good_selectors,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._runs import Runs
from ansible_collections.armfleet.vfio.plugins.module_utils._selectors import KINDS, check_driver
from ansible_collections.armfleet.vfio.plugins.module_utils._sysfs import Sysfs
from ansible_collections.armfleet.vfio.plugins.module_utils._usage import ACCEPTABLE, Usage

_SELECTOR: dict[str, Any] = {
    "dt_path": {"type": "str"},
    "compatible": {"type": "str"},
    "acpi_path": {"type": "str"},
    "acpi_hid": {"type": "str"},
    "name": {"type": "str"},
    "bus": {"type": "str", "choices": ["platform", "amba"]},
    "expect": {"type": "int"},
    "required": {"type": "bool", "default": True},
    # As a list, a text would be split at the comma that nearly every board's name has.
    "when_board": {"type": "raw"},
}
_SELECTOR_RULES: dict[str, Any] = {
    "mutually_exclusive": [list(KINDS)],
    "required_one_of": [list(KINDS)],
}
_COMMON: dict[str, Any] = {
    "timeout": {"type": "int", "default": 30},
    "allow": {"type": "list", "elements": "str", "choices": list(ACCEPTABLE), "default": []},
}
_VFIO: dict[str, Any] = {
    "reset_required": {"type": "bool"},
    "unsafe_noiommu": {"type": "bool"},
}


def _state(*choices: str) -> dict[str, Any]:
    return {"type": "str", "choices": list(choices), "default": choices[0]}


def _devices(suboptions: Mapping[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return {
        "type": "list",
        "elements": "dict",
        "options": dict(_SELECTOR, **(suboptions or {})),
        **_SELECTOR_RULES,
        **settings,
    }


# The arguments of AnsibleModule, by the module's name.
SPECS: dict[str, dict[str, Any]] = {
    "host_policy": {
        "argument_spec": {
            "devices": _devices(
                {
                    "policy": {
                        "type": "str",
                        "required": True,
                        "choices": [VFIO, NO_AUTOBIND, DRIVER, DEFAULT],
                    },
                    "driver": {"type": "str"},
                    "tag": {"type": "str"},
                },
                required_if=[["policy", DRIVER, ["driver"]]],
            ),
            "state": _state("present", "absent", "previous"),
            "rollout": {"type": "str"},
            "runtime": {"type": "bool", "default": True},
            "persistent": {"type": "bool", "default": True},
            "vfio_group": {"type": "str"},
            "vfio_mode": {"type": "str"},
            "unsafe_vfio_mode": {"type": "bool", "default": False},
            "initramfs": {
                "type": "str",
                "choices": [AUTO, ALWAYS, NEVER],
                "default": AUTO,
            },
            "driverctl": {
                "type": "str",
                "choices": ["refuse", "take_over"],
                "default": "refuse",
            },
            **_VFIO,
            **_COMMON,
        },
        "required_if": [
            ["state", "present", ["devices"]],
            ["state", "previous", ["rollout"]],
        ],
    },
    "driver_override": {
        "argument_spec": {
            "devices": _devices(required=True),
            "driver": {"type": "str"},
            "state": _state("present", "absent"),
            "rebind": {"type": "bool", "default": False},
            **_COMMON,
        },
        "required_if": [["state", "present", ["driver"]]],
    },
    "no_autobind": {
        "argument_spec": {
            "devices": _devices(required=True),
            "state": _state("present", "absent"),
            "unbind": {"type": "bool", "default": True},
            **_COMMON,
        },
    },
    "vfio_binding": {
        "argument_spec": {
            "devices": _devices(required=True),
            "state": _state("bound", "released"),
            **_VFIO,
            **_COMMON,
        },
    },
    "device_info": {
        "argument_spec": {
            "devices": _devices(),
            "only_claimed": {"type": "bool", "default": False},
        }
    },
    "initramfs": {"argument_spec": {"require_image": {"type": "bool", "default": False}}},
}


def host_policy() -> None:
    """Main of the module of that name."""
    _act("host_policy", _whole_list, _boot_result)


def driver_override() -> None:
    """Main of the module of that name."""
    _act("driver_override", _override)


def no_autobind() -> None:
    """Main of the module of that name."""
    _act("no_autobind", _no_autobind)


def vfio_binding() -> None:
    """Main of the module of that name."""
    _act("vfio_binding", _vfio_binding, _vfio_result)


def _act(
    name: str,
    to_request: Callable[[Mapping[str, Any]], Request],
    to_result: Callable[[Outcome], dict[str, Any]] = _report.result,
) -> None:
    module = module_of(name)
    host = host_for(module.params["timeout"], name)
    try:
        if module.params["timeout"] < 1:
            raise PolicyError("`timeout` is in seconds, 1 or more")
        outcome = run(host, to_request(module.params), module.check_mode)
    except PolicyError as error:
        fail(module, error)
    finally:
        host.sysfs.close()
    for sentence in (*outcome.interrupted, *outcome.warnings, *outcome.not_checked):
        module.warn(_text.printable_result(sentence))
    if outcome.noiommu_kept and outcome.is_changed:
        module.warn(outcome.noiommu_kept)
    module.exit_json(**_text.printable_result(to_result(outcome)))


def fail(module: AnsibleModule, error: PolicyError, **returned: Any) -> None:
    """End the module with a line for each problem, and with what it returned before it failed."""
    module.fail_json(msg="\n".join(map(_text.printable_result, error.problems)), **returned)


def module_of(name: str) -> AnsibleModule:
    """The module of that name with its options; it fails on a Python that is too old."""
    # Directories that are made on the way have no mode of their own.
    os.umask(0o022)
    module = AnsibleModule(supports_check_mode=True, **SPECS[name])
    if sys.version_info < (3, 8):
        module.fail_json(
            msg="armfleet.vfio.%s needs Python 3.8 or later on the target; %s is %d.%d. Point "
            "ansible_python_interpreter to a newer one"
            % (name, sys.executable, *sys.version_info[:2])
        )
    return module


def host_for(timeout: int, name: str) -> Host:
    """The doors to this machine for a run of that module."""
    sysfs = Sysfs(timeout=timeout)
    runs = Runs(name, timeout)
    return Host(sysfs, Kmod(timeout=timeout), Files(), Usage(sysfs), runs, KernelLog())


def _whole_list(params: Mapping[str, Any]) -> Request:
    if not params["runtime"] and not params["persistent"]:
        raise PolicyError(
            "`runtime` and `persistent` are both false, which leaves nothing to do; set one to true"
        )
    problems = Problems()
    is_present = params["state"] == "present"
    rollout = params["rollout"]
    takes_over = params["driverctl"] == "take_over"
    if rollout is not None and not params["persistent"]:
        problems.add(
            "`rollout` is given and `persistent` is false: what is kept of a rollout is the list "
            "that lasts. Leave one of them out"
        )
    if rollout is not None and takes_over:
        problems.add(
            "`rollout` is given and `driverctl` is take_over, which removes driverctl's files: a "
            "rollout could not be put back. Move to the list with migrate_driverctl first"
        )
    good = good_entries(params["devices"] if is_present else [], problems)
    access = None
    with problems.collecting():
        access = check_access(params["vfio_group"], params["vfio_mode"])
        if is_present and access and access.is_for_all and not params["unsafe_vfio_mode"]:
            problems.add(
                "`vfio_mode` %r lets every user of the host have the devices. Give a mode that "
                "ends in 0 and `vfio_group`, or set `unsafe_vfio_mode: true`" % access.mode
            )
    return Request(
        list(good.values()),
        is_whole_list=True,
        runtime=params["runtime"],
        persistent=params["persistent"],
        settings=_settings(params),
        access=access,
        allow=params["allow"],
        takes_over=takes_over,
        initramfs=params["initramfs"],
        rollout=rollout,
        restores=params["state"] == "previous",
        problems=problems.by_position,
        positions=list(good),
    )


def _override(params: Mapping[str, Any]) -> Request:
    if params["state"] == "absent":
        return _one_policy(params, Policy(DEFAULT, rebind=params["rebind"]))
    problems = Problems()
    with problems.collecting():
        check_driver(params["driver"])
    policy = Policy(DRIVER, params["driver"], rebind=params["rebind"])
    request = _one_policy(params, policy)
    if problems.sentences:
        # What the devices make of such a name need not be inspected.
        for position, sentence in request.problems:
            problems.add(sentence, position=position)
        problems.end()
    return request


def _no_autobind(params: Mapping[str, Any]) -> Request:
    policy = Policy(NO_AUTOBIND, rebind=params["unbind"])
    return _one_policy(params, policy, gives_back=params["state"] == "absent")


def _vfio_binding(params: Mapping[str, Any]) -> Request:
    request = _one_policy(params, Policy(VFIO), gives_back=params["state"] == "released")
    return request._replace(settings=_settings(params))


def _one_policy(params: Mapping[str, Any], policy: Policy, gives_back: bool = False) -> Request:
    if not params["devices"]:
        raise PolicyError("devices is empty; name at least one device")
    if gives_back:
        policy = Policy(DEFAULT, taken_by=policy)
    problems = Problems()
    good = good_selectors(params["devices"], problems)
    return Request(
        [Entry(selector, policy) for selector in good.values()],
        allow=params["allow"],
        problems=problems.by_position,
        positions=list(good),
    )


def _settings(params: Mapping[str, Any]) -> VfioSettings:
    return VfioSettings(params["reset_required"], params["unsafe_noiommu"])


def _vfio_result(outcome: Outcome) -> dict[str, Any]:
    return dict(_report.result(outcome), kept_settings=_report.kept_settings(outcome))


def _boot_result(outcome: Outcome) -> dict[str, Any]:
    return dict(
        _vfio_result(outcome),
        devices=_report.linked(outcome),
        boot_files=_report.boot_files(outcome),
        initramfs_tool=outcome.initramfs.tool,
        initramfs_command=outcome.initramfs.command,
        reboot_required=outcome.needs_boot,
        not_checked=list(outcome.not_checked),
        kernel_command_line=[_report.early(one) for one in outcome.early],
    )
