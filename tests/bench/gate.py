"""What looking at what devices carry adds to a plan; run on the host, it prints ratios by policy.

The arguments are the collection's parent directory and the policies.
"""

from __future__ import annotations

import json
import math
import sys
import time
from unittest import mock

sys.path.insert(0, sys.argv[1])

from ansible_collections.armfleet.vfio.plugins.module_utils import _engine
from ansible_collections.armfleet.vfio.plugins.module_utils._call import Host, Request
from ansible_collections.armfleet.vfio.plugins.module_utils._files import Files
from ansible_collections.armfleet.vfio.plugins.module_utils._kernel_log import KernelLog
from ansible_collections.armfleet.vfio.plugins.module_utils._kmod import Kmod
from ansible_collections.armfleet.vfio.plugins.module_utils._model import VfioSettings
from ansible_collections.armfleet.vfio.plugins.module_utils._policies import parse_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._runs import Runs
from ansible_collections.armfleet.vfio.plugins.module_utils._sysfs import Sysfs
from ansible_collections.armfleet.vfio.plugins.module_utils._usage import Usage

BATCH, MOST_BATCHES = 15, 10
# Less of a gain is chance.
QUICKER = 0.98
DEVICES = 200


def _no_hazards(*_arguments: object) -> list[str]:
    return []


def _seconds(policy: str, has_gate: bool) -> float:
    """One check of a list for all rings, by processes that nothing else has used."""
    sysfs = Sysfs()
    host = Host(sysfs, Kmod(), Files(), Usage(sysfs), Runs("gate"), KernelLog())
    request = Request(
        parse_entries([{"compatible": "acme,ring", "policy": policy, "expect": DEVICES}]),
        is_whole_list=True,
        settings=VfioSettings(reset_required=False),
    )
    gate = _engine._hazards if has_gate else _no_hazards
    with mock.patch.object(_engine, "_hazards", gate):
        started = time.perf_counter()
        outcome = _engine.run(host, request, check_mode=True)
        seconds = time.perf_counter() - started
    sysfs.close()
    if sum(bool(one.steps) for one in outcome.devices) != DEVICES:
        raise SystemExit("the plan takes no %d devices from their drivers" % DEVICES)
    return seconds


def _ratio(policy: str) -> float:
    """Of the quickest round with the gate to the quickest without.

    Other rounds ran beside something else. A batch that finds no quicker ones ends the search.
    """
    gated = plain = math.inf
    for _batch in range(MOST_BATCHES):
        before = gated, plain
        for _round in range(BATCH):
            gated = min(gated, _seconds(policy, True))
            plain = min(plain, _seconds(policy, False))
        if gated > before[0] * QUICKER and plain > before[1] * QUICKER:
            break
    return gated / plain


if __name__ == "__main__":
    print(json.dumps({policy: _ratio(policy) for policy in sys.argv[2:]}))
