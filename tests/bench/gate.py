"""Prints by policy how much the check for devices in use adds to a plan. It runs on the host.

The arguments are the collection's parent directory and the policies.
"""

from __future__ import annotations

import json
import sys
from unittest import mock

sys.path.insert(0, sys.argv[1])

from ansible_collections.armfleet.vfio.plugins.module_utils._apply import preflight
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.reconcile import reconcile
from ansible_collections.armfleet.vfio.plugins.module_utils._apply.run_lock import RunLock
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.checker import Usage
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy import VfioSettings
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._model.request import Request
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._system.host import Host
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmod import Kmod
from ansible_collections.armfleet.vfio.plugins.module_utils._system.kmsg import KernelLog
from ansible_collections.armfleet.vfio.plugins.module_utils._system.sysfs import Sysfs

DEVICES = 200


def _no_hazards(*_arguments: object, **_options: object) -> list[str]:
    return []


def _plan(policy: str, has_gate: bool) -> None:
    """Plan a list for all rings in check mode, with gateways that nothing else has used."""
    sysfs = Sysfs()
    host = Host(sysfs, Kmod(), Files(), KernelLog())
    request = Request(
        parse_entries([{"compatible": "acme,ring", "policy": policy, "expect": DEVICES}]),
        is_whole_list=True,
        settings=VfioSettings(reset_required=False),
    )
    gate = preflight._find_hazards if has_gate else _no_hazards
    with mock.patch.object(preflight, "_find_hazards", gate):
        outcome = reconcile(host, Usage(sysfs), RunLock("gate"), request, check_mode=True)
    sysfs.close()
    if sum(bool(device_outcome.steps) for device_outcome in outcome.devices) != DEVICES:
        raise SystemExit("the plan takes no %d devices from their drivers" % DEVICES)


def _calls(policy: str, has_gate: bool) -> int:
    """Return the number of Python and C functions that a check calls, which is always the same.

    Every access to /sys is at least one call. Seconds would depend on the load of the machine.
    """
    count = 0

    def counted(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        if event in {"call", "c_call"}:
            count += 1

    sys.setprofile(counted)
    try:
        _plan(policy, has_gate)
    finally:
        sys.setprofile(None)
    return count


def _ratio(policy: str) -> float:
    # Only the first check of a process imports and compiles modules.
    _plan(policy, True)
    return _calls(policy, True) / _calls(policy, False)


if __name__ == "__main__":
    print(json.dumps({policy: _ratio(policy) for policy in sys.argv[2:]}))
