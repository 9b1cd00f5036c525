# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which values the parameters of VFIO's modules accept. Pure.

parse_args in kernel/params.c ends with the error of any value, whichever follows, and load_module
in kernel/module/main.c with it. Parameters that a module does not have are ignored.
"""

from __future__ import annotations

import re

from .._discovery.kernel_version import Version

# module_param of type bool in drivers/vfio; disable_vga is of x86 alone.
_BOOLEANS = frozenset(
    (
        *("vfio.enable_unsafe_noiommu_mode", "vfio_platform.reset_required"),
        *("vfio_iommu_type1.allow_unsafe_interrupts", "vfio_iommu_type1.disable_hugepages"),
        *("vfio_pci.nointxmask", "vfio_pci.disable_idle_d3", "vfio_pci.enable_sriov"),
        "vfio_pci.disable_denylist",
    )
)
_NUMBERS = frozenset(("vfio_iommu_type1.dma_entry_limit",))
# Beside each text how many bytes it can have, with the one that ends it.
_TEXTS = {"vfio_pci.ids": 1024}
TYPED = frozenset((*_BOOLEANS, *_NUMBERS, *_TEXTS))
_NUMBER = re.compile(r"\+?(0[xX][0-9A-Fa-f]+|0[0-7]*|[1-9][0-9]{0,9})\n?")
_LARGEST = (1 << 32) - 1

# Of each first letter, what it is and since which version: commits 0d6ea3ac94ca and ae5b3500856f.
_LETTERS: dict[str, tuple[bool, Version]] = {
    **dict.fromkeys("1y", (True, (0, 0))),
    **dict.fromkeys("0n", (False, (0, 0))),
    "t": (True, (5, 19)),
    "f": (False, (5, 19)),
    "e": (True, (6, 16)),
    "d": (False, (6, 16)),
}
# Kernels that live on in distributions alone, which bring later changes into them.
_WITH_LATER_CHANGES = ((4, 18), (5, 14))


def is_true(value: str, version: Version | None = None) -> bool | None:
    """Return a boolean as kstrtobool in lib/kstrtox.c of a kernel reads it; None if it is none.

    Where the version is not known, what any kernel accepts is one.
    """
    text = value.lower()
    if text.startswith(("on", "of")):
        return text.startswith("on")
    is_on, since = _LETTERS.get(text[:1], (None, (0, 0)))
    is_known = version is not None and version not in _WITH_LATER_CHANGES
    return None if is_known and version and version < since else is_on


def is_refused(name: str, value: str | None, version: Version | None) -> bool:
    """Return whether the kernel refuses a value of "module.parameter", unquoted.

    None is a name alone, which is true for a boolean and an error for others.
    """
    if name in _BOOLEANS:
        return value is not None and is_true(value, version) is None
    if name in _NUMBERS:
        match = _NUMBER.fullmatch(value or "")
        return match is None or _number(match.group(1)) > _LARGEST
    if name in _TEXTS:
        return value is None or len(value.encode("utf-8", "surrogateescape")) >= _TEXTS[name]
    return False


def _number(digits: str) -> int:
    """kstrtouint with base 0."""
    if digits[:2] in ("0x", "0X"):
        return int(digits, 16)
    return int(digits, 8 if digits.startswith("0") else 10)
