# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has of what VFIO needs, and what is missing. Reads only."""

from __future__ import annotations

import os
from typing import Any, Mapping, NamedTuple, Sequence

from .. import _text
from .._apply.readiness import BUILT_BY_ROLE, signed_only_reason, supports_noiommu
from .._boot import initramfs
from .._discovery.kernel_options import KernelOptions, kernel_options
from .._discovery.kernel_version import running_version
from .._errors import PolicyError
from .._model.buses import BUSES, VFIO_DRIVERS
from .._system.host import Host

OPTIONS = (
    *("VFIO", "VFIO_PLATFORM", "VFIO_AMBA", "VFIO_PCI"),
    *("VFIO_NOIOMMU", "VFIO_DEVICE_CDEV", "IOMMUFD"),
    *("ARM_SMMU", "ARM_SMMU_V3"),
)
_RELEASE_FILES = ("/etc/os-release", "/usr/lib/os-release")
_INTERRUPTS = "module/%s/parameters/allow_unsafe_interrupts"
_DOCUMENTATION = "see docs/hosts.md"
_DEBIAN = "Debian GNU/Linux"
_ROLE = "the role armfleet.vfio.vfio_modules builds it"
_NOT_INSTALLED = "%s of the kernel has it as a module that is not installed: install %s"
_REST_OF_MODULES = "the distribution's package with the rest of the kernel's modules"
# By the beginning of PRETTY_NAME in os-release(5).
_PACKAGES = {"Ubuntu": "linux-modules-extra-%s", "Fedora": "kernel-modules-extra-%s"}
_OTHER_KERNEL = "the host needs a kernel with it; %s" % _DOCUMENTATION


class VfioSupport(NamedTuple):
    """What VFIO finds on a host.

    ``drivers`` are the VFIO drivers of the buses that the host has devices on, and whether the
    kernel has them. ``iommus`` are
    the names of the IOMMUs that are active. ``noiommu`` is whether VFIO can do without one, None if
    that is unknown. ``unsafe_interrupts`` is by module. ``signed_modules`` is why only signed
    modules can be loaded. ``deprecated`` is what the kernel says of those of ``drivers`` that it
    will lose. ``missing`` are sentences.
    """

    kernel: str
    distribution: str | None
    drivers: Mapping[str, bool]
    iommus: Sequence[str]
    noiommu: bool | None
    unsafe_interrupts: Mapping[str, bool]
    signed_modules: str | None
    initramfs_tool: str | None
    has_systemd: bool
    options: KernelOptions
    deprecated: Mapping[str, str]
    missing: Sequence[str]


def vfio_support(host: Host) -> VfioSupport:
    """Return what this host has."""
    sysfs, files = host.sysfs, host.files
    release = os.uname().release
    drivers = {
        driver: sysfs.exists("bus/%s/drivers/%s" % (bus, driver)) or _is_available(host, driver)
        for bus, driver in VFIO_DRIVERS.items()
        if sysfs.names("bus/%s/devices" % bus)
    }
    tool = initramfs.detect(files)
    flags = {module: sysfs.read(_INTERRUPTS % module) for module in ("vfio_iommu_type1", "iommufd")}
    support = VfioSupport(
        kernel=release,
        distribution=_distribution(host),
        drivers=drivers,
        iommus=sysfs.names("class/iommu"),
        noiommu=supports_noiommu(sysfs, host.kmod),
        unsafe_interrupts={module: flag == "Y" for module, flag in flags.items() if flag},
        signed_modules=signed_only_reason(sysfs),
        initramfs_tool=tool.name if tool else None,
        has_systemd=files.status("/run/systemd/system") is not None,
        options=_options(host, release),
        deprecated=_deprecated(host, drivers),
        missing=(),
    )
    return support._replace(missing=_missing(support))


def to_mapping(support: VfioSupport) -> dict[str, Any]:
    """Return it as device_info does."""
    return {
        "kernel": support.kernel,
        "distribution": support.distribution,
        "drivers": dict(support.drivers),
        "iommus": list(support.iommus),
        "noiommu": support.noiommu,
        "unsafe_interrupts": dict(support.unsafe_interrupts),
        "signed_modules": support.signed_modules,
        "initramfs_tool": support.initramfs_tool,
        "systemd": support.has_systemd,
        "kernel_options": dict(support.options.values),
        "kernel_options_source": support.options.source,
        "deprecated": dict(support.deprecated),
        "missing": list(support.missing),
    }


def _deprecated(host: Host, drivers: Mapping[str, bool]) -> dict[str, str]:
    """Return what the kernel logs of drivers that it has, by driver."""
    version = running_version(host.files)
    return {
        driver: deprecation.text
        for bus, driver in VFIO_DRIVERS.items()
        for deprecation in [BUSES[bus].vfio_deprecation]
        if drivers.get(driver) and deprecation and deprecation.holds_for(version)
    }


def _is_available(host: Host, driver: str) -> bool:
    try:
        return host.kmod.is_available(driver)
    except PolicyError:
        # There is no modprobe, so nothing can be loaded.
        return False


def _options(host: Host, release: str) -> KernelOptions:
    try:
        return kernel_options(host.files, release, OPTIONS)
    except PolicyError:
        # Some distributions let root alone read them.
        return KernelOptions()


def _distribution(host: Host) -> str | None:
    for path in _RELEASE_FILES:
        for line in _text.lines(host.files.read_drop_in(path) or ""):
            name, _equals, value = line.partition("=")
            if name == "PRETTY_NAME":
                return value.strip("\"'") or None
    return None


def _missing(support: VfioSupport) -> list[str]:
    sentences = [
        "The kernel %s has no %s (CONFIG_%s), so that no device of its bus can be bound to VFIO; %s"
        % (support.kernel, driver, _option(driver), _remedy(support, driver))
        for driver, is_there in support.drivers.items()
        if not is_there
    ]
    if not support.iommus:
        sentences.append(
            "No IOMMU is active: the firmware describes none, the kernel has no driver for it, or "
            "a kernel parameter disables it; %s" % _DOCUMENTATION
        )
    return sentences


def _option(driver: str) -> str:
    return driver.upper().replace("-", "_")


def _remedy(support: VfioSupport, driver: str) -> str:
    """Return what gives the driver to this distribution."""
    distribution, options = support.distribution or "", support.options
    if options.values.get(_option(driver)) == "m":
        packages = [
            package % support.kernel
            for name, package in _PACKAGES.items()
            if distribution.startswith(name)
        ]
        return _NOT_INSTALLED % (options.source, packages[0] if packages else _REST_OF_MODULES)
    # Raspberry Pi OS has Debian's name, and a kernel of its own.
    is_debian = distribution.startswith(_DEBIAN) and "-arm64" in support.kernel
    if is_debian and driver in BUILT_BY_ROLE:
        return _ROLE
    return _OTHER_KERNEL
