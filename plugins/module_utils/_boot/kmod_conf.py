# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Configuration for modprobe and systemd-modules-load. Pure."""

from __future__ import annotations

from typing import Sequence

from .._model.policy import (
    CONTAINER_MODULE,
    VFIO_PARAMETERS,
    VfioSettings,
)
from .last_applied import MARK, RULES, BootPlan


def parameters(settings: VfioSettings) -> dict[str, bool]:
    """Return the parameters that are set at boot, by "module.parameter"."""
    named = {name: getattr(settings, option) for name, option in VFIO_PARAMETERS.items()}
    return {name: value for name, value in named.items() if value is not None}


def modprobe_conf(plan: BootPlan) -> str | None:
    return _plain(
        [
            "options %s=%d" % (name.replace(".", " "), value)
            for name, value in parameters(plan.options.settings).items()
        ]
    )


def modules_load_conf(plan: BootPlan) -> str | None:
    drivers = plan.vfio_drivers
    # vfio loads it after itself, but not if vfio is built in, or was loaded by an initramfs that
    # has vfio alone.
    is_set = bool(drivers) and plan.options.settings.unsafe_interrupts
    return _plain([*drivers, CONTAINER_MODULE] if is_set else drivers)


def _plain(lines: Sequence[str]) -> str | None:
    if not lines:
        return None
    return "\n".join([MARK, "# The policy list is in %s." % RULES, *lines]) + "\n"
