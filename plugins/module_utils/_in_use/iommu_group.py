# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other devices of an IOMMU group that stay on their native drivers."""

from __future__ import annotations

from typing import Container

from .._discovery.vfio import native_siblings
from .._model.device import Identity
from .kinds import Hazard
from .use_kind import UseKind


class IommuGroup(UseKind):
    name = "group"
    verdict = "would be of no use to VFIO"
    remedy = (
        "Give %(subject)s to VFIO in the same list, or keep drivers off it with no_autobind; to do "
        "so later, add 'group' to `allow`"
    )

    def of_group(self, device: Identity, leaving: Container[str]) -> list[Hazard]:
        return [
            Hazard(
                self.name,
                sibling.name,
                "%s of the same IOMMU group (%s) is on driver %s, and VFIO opens no device of a "
                "group with such a one" % (sibling.name, sibling.group, sibling.driver),
            )
            for sibling in native_siblings(self.sysfs, device)
            if sibling.name not in leaving
        ]
