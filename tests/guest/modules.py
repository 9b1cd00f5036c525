# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules of a guest: its kernel's, and those that are built out of its tree.

These are drivers of our own for devices that have no hardware behind them, VFIO drivers of the
distribution's own source that its kernel lacks, and the VFIO driver of the CDX bus with a repair.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from . import commands
from .artefacts import Artefact
from .kernel import kernel
from .packages import Series, kernel_source
from .small_kernel import MAKE

_SOURCES = Path(__file__).with_name("modules")
# What the package of the kernel is built with and an older compiler cannot do: functions that are
# prepared for ftrace but aligned otherwise than the kernel expects end modprobe with a fault.
STOCK_OPTIONS = (
    "CC=aarch64-linux-gnu-gcc",
    "CC_FLAGS_FTRACE=",
    "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=",
    "CONFIG_DEBUG_INFO=",
    "CONFIG_DEBUG_INFO_BTF_MODULES=",
)
# Of drivers/vfio: the core with noiommu, and what Debian does not build. The rest stays its own.
_VFIO_OPTIONS = (
    "CONFIG_VFIO_NOIOMMU=y",
    "KCFLAGS=-DCONFIG_VFIO_NOIOMMU=1",
    "CONFIG_VFIO_PLATFORM_BASE=m",
    "CONFIG_VFIO_PLATFORM=m",
    "CONFIG_VFIO_AMBA=m",
    "CONFIG_VFIO_PLATFORM_AMDXGBE_RESET=m",
    "CONFIG_VFIO_PCI_CORE=",
    "CONFIG_VFIO_PCI=",
    "CONFIG_VFIO_FSL_MC=",
)
# Since 6.6 Linux requires this of all VFIO drivers if there is IOMMUFD; vfio-cdx lacks it up to 7.2
# and binds to no device then: __vfio_register_dev in drivers/vfio/vfio_main.c.
_ATTACH = "\t.attach_ioas\t= vfio_iommufd_physical_attach_ioas,\n"
_DETACH = "\t.detach_ioas\t= vfio_iommufd_physical_detach_ioas,\n"
# Found by depmod before the kernel's own of the same name.
_ADDED = "updates"


def _build(series: Series, source: Path, options: Sequence[str], log: Path) -> None:
    commands.require("make", "aarch64-linux-gnu-gcc")
    headers = kernel(series).ensure() / "headers"
    stock = STOCK_OPTIONS if series.stock else ()
    make = [*MAKE, "-s", "-C", headers, "M=%s" % source, *stock, *options, "modules"]
    commands.call(make, log=log)


def _make(series: Series, folder: Path) -> None:
    commands.require("depmod")
    log = folder / "build.log"
    work = folder / "work"
    work.mkdir()
    commands.call(["cp", "-r", kernel(series).ensure() / "tree", folder / "tree"], log=log)
    (version,) = (folder / "tree/lib/modules").iterdir()
    commands.call(["cp", "-a", _SOURCES, work / "acme"], log=log)
    _build(series, work / "acme", (), log)
    if series.stock:
        commands.call(["cp", "-r", kernel(series).ensure() / "vfio", work], log=log)
        _build(series, work / "vfio", _VFIO_OPTIONS, log)
    else:
        _extract_vfio_cdx(series, work, log)
        _build(series, work / "cdx", ["CONFIG_VFIO_CDX=m"], log)
    (version / _ADDED).mkdir()
    for module in sorted(work.rglob("*.ko")):
        module.rename(version / _ADDED / module.name)
    commands.call(["rm", "-r", work], log=log)
    commands.call(["depmod", "-b", folder / "tree", version.name], log=log)


def _extract_vfio_cdx(series: Series, work: Path, log: Path) -> None:
    """Extract the source of vfio-cdx into ``work``/cdx, and add what it lacks."""
    archive = kernel_source(series).ensure() / "linux.tar.xz"
    members = ["--strip-components=3", "--wildcards", "*/drivers/vfio/cdx"]
    commands.call(["tar", "-xJf", archive, "-C", work, *members], log=log)
    main = work / "cdx/main.c"
    source = main.read_text()
    if _DETACH not in source:
        main.write_text(source.replace(_ATTACH, _ATTACH + _DETACH))


def modules(series: Series) -> Artefact:
    """tree/lib/modules with all modules of a guest, indexed."""
    sources = sorted(path for path in _SOURCES.iterdir() if path.is_file())
    built = kernel(series).ensure()
    return Artefact(
        name="modules",
        purpose="building the modules of guests with Linux %s (about 10 s)" % series.name,
        # The configuration names the kernel's exact version, which its recipe does not, and the
        # image has the key of this very build, which signs its modules.
        recipe=[built / "config", built / "Image", *sources, Path(__file__)],
        make=partial(_make, series),
    )
