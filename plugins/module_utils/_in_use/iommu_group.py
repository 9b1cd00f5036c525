# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other devices of an IOMMU group that stay on their native drivers."""

from __future__ import annotations

from typing import Container

from .._discovery.vfio import native_siblings
from .._model.device import Identity
from .kinds import GROUP, Hazard
from .use_kind import UseKind


class IommuGroup(UseKind):
    name = GROUP
    ends_with_supplier = False
    verdict = "cannot be opened by VFIO"
    remedy = (
        "Add %(subject)s to the list with policy vfio or no_autobind; to do so later, add "
        "'%(kind)s' to `allow`"
    )

    def of_group(self, device: Identity, leaving: Container[str]) -> list[Hazard]:
        return [
            Hazard(
                self.name,
                sibling.name,
                "%s of the same IOMMU group (%s) is bound to %s, and VFIO requires every device "
                "of the group to be bound to a VFIO driver or to none"
                % (sibling.name, sibling.group, sibling.driver),
            )
            for sibling in native_siblings(self.sysfs, device)
            if sibling.name not in leaving
            and sibling.container != device.name_on_bus
            and sibling.container not in leaving
        ]
