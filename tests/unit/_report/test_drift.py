# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drift of a device: each difference is one sentence, in the order of their urgency."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.forecast import (
    Binding,
    BootState,
    OverrideSources,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import BLOCKED, Hazard
from ansible_collections.armfleet.vfio.plugins.module_utils._model.device import Identity, State
from ansible_collections.armfleet.vfio.plugins.module_utils._model.policy_list import parse_entries
from ansible_collections.armfleet.vfio.plugins.module_utils._report.inspection import (
    Inspection,
    LostAtBoot,
    Sriov,
)

(ENTRY,) = parse_entries([{"dt_path": "/soc/crypto@b000000", "policy": "vfio"}])
LISTED, UNLISTED = OverrideSources("platform", ENTRY), OverrideSources("platform")
VFIO, NATIVE = Binding("vfio-platform", "vfio-platform"), Binding("acme-crypto", None)
NOTHING = Binding(None, None)
BY_NATIVE, BY_VFIO = "it is bound to acme-crypto", "it is bound to vfio-platform"
LOST = [LostAtBoot(Hazard("network", "eth0", "eth0 is up"), is_accepted=False)]


def inspected(
    running: Binding, after: Binding, sources: OverrideSources, *, known: bool = True, **more: Any
) -> Inspection:
    return Inspection(
        Identity("platform", "b000000.crypto"),
        State(driver=running.driver, driver_override=running.driver_override),
        bound_by=None,
        hazards=more.pop("hazards", []),
        sources=sources,
        next_boot=BootState(after, "the reason", known),
        **more,
    )


@pytest.mark.parametrize(
    ("inspection", "beginnings", "in_drift"),
    [
        (inspected(VFIO, VFIO, LISTED), [], False),
        (inspected(NATIVE, NATIVE, UNLISTED), [], False),
        (inspected(NATIVE, VFIO, LISTED), [BY_NATIVE], False),
        (inspected(NATIVE, NATIVE, LISTED), [BY_NATIVE], False),
        (inspected(VFIO, NATIVE, LISTED), [BY_VFIO], True),
        (inspected(NOTHING, NATIVE, LISTED), ["it is bound to no driver"] * 2, True),
        (inspected(VFIO, NATIVE, UNLISTED), [BY_VFIO], True),
        # What is not known is most likely as it is now, or as nothing was done to it.
        (inspected(VFIO, VFIO, LISTED, known=False), [], False),
        (inspected(VFIO, NOTHING, UNLISTED, known=False), [BY_VFIO], True),
        (inspected(NOTHING, NOTHING, UNLISTED, known=False), [], False),
        (inspected(NATIVE, VFIO, LISTED, known=False), [BY_NATIVE, BY_NATIVE], True),
        # Other differences have other reasons.
        (inspected(VFIO, VFIO, LISTED, sriov=Sriov(1, 4, 2)), ["it has 1 virtual"], False),
        (inspected(VFIO, VFIO, LISTED, sriov=Sriov(2, 4, 2)), [], False),
        (inspected(VFIO, VFIO, LISTED, sriov=Sriov(2, 4)), [], False),
        (
            inspected(VFIO, NATIVE, LISTED, lost=LOST, against=["a"], without_driver=["b"]),
            ["the next boot unbinds it from vfio-platform, but eth0", BY_VFIO, "a", "b"],
            True,
        ),
        # It is not known how a device is that a hanging driver holds.
        (inspected(NOTHING, NATIVE, LISTED, hazards=[Hazard(BLOCKED, "x", "x")]), [], False),
    ],
)
def test_each_difference_is_a_sentence_and_that_of_the_next_boot_has_its_reason(
    inspection: Inspection, beginnings: list[str], *, in_drift: bool
) -> None:
    drift = inspection.drift
    assert len(drift) == len(beginnings)
    assert all(map(str.startswith, drift, beginnings)), drift
    assert inspection.is_next_boot_in_drift is in_drift
    assert any(sentence.endswith(": the reason") for sentence in drift) is in_drift
