#!/usr/bin/env python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""tools/board_table.py [--write] [FILE.dtb ...]

Prints which devices of a board are behind an IOMMU, as its device tree has them: for the files, or
else the tables of docs/hosts.md, from the device trees of Debian's kernel. ``--write`` writes these
into the page.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from extensions.simulator.devicetree import Node
from extensions.simulator.dtb import read_file
from extensions.simulator.errors import SimulatorError
from extensions.simulator.nodes import base_name, first_cell, is_available, is_compatible, phandles
from extensions.simulator.population import population
from plugins.module_utils._discovery.iommus import QCOM_IOMMU, SMMU, SMMU_V3
from tests.boards import device_trees, jetson_device_trees

PAGE = ROOT / "docs/hosts.md"
# The boards of the page besides the Jetsons; each is a file of Debian's kernel.
WELL_KNOWN = (
    "amd/amd-overdrive-rev-b1",
    "amlogic/meson-g12b-odroid-n2-plus",
    "arm/juno-r2",
    "broadcom/bcm2711-rpi-4-b",
    "broadcom/bcm2712-rpi-5-b",
    "freescale/fsl-ls1046a-rdb",
    "freescale/fsl-ls2088a-rdb",
    "freescale/fsl-lx2160a-honeycomb",
    "freescale/imx8mp-evk",
    "freescale/imx8mq-evk",
    "freescale/imx8qm-mek",
    "hisilicon/hi3660-hikey960",
    "hisilicon/hip07-d05",
    "marvell/armada-3720-espressobin",
    "marvell/armada-8040-mcbin",
    "mediatek/mt8173-evb",
    "qcom/qrb5165-rb5",
    "qcom/sc8280xp-lenovo-thinkpad-x13s",
    "renesas/r8a774a1-hihope-rzg2m",
    "rockchip/rk3399-rockpro64",
    "rockchip/rk3588-rock-5b",
    "ti/k3-j721e-evm",
    "xilinx/zynqmp-zcu102-rev1.0",
)


@dataclass(frozen=True)
class Board:
    """The IOMMUs of a board and the devices behind them, from its device tree."""

    file: str
    model: str
    devices: int
    # The number of devices by the name of their nodes, without unit addresses.
    behind: Mapping[str, int]
    # How many of those VFIO accepts.
    accepted: int
    # Devices that refer to a disabled IOMMU.
    behind_disabled: Mapping[str, int]
    # Names of buses with an ``iommu-map``, whose devices are behind an IOMMU.
    mapped: tuple[str, ...]
    iommus: tuple[str, ...]
    disabled_iommus: tuple[str, ...]

    @property
    def maker(self) -> str:
        """Return the directory of its file."""
        return self.file.partition("/")[0]


def survey(path: Path) -> Board:
    """Return the board of a .dtb file."""
    return survey_tree(read_file(path), f"{path.parent.name}/{path.stem}")


def survey_tree(root: Node, file: str) -> Board:
    """Return the board that a device tree describes."""
    by_phandle = phandles(root)
    behind: Counter[str] = Counter()
    behind_disabled: Counter[str] = Counter()
    accepted = 0
    devices = list(_devices(root))
    for node in devices:
        iommu = by_phandle.get(first_cell(node, "iommus") or 0)
        if iommu is None:
            continue
        if not _is_enabled(iommu):
            behind_disabled[base_name(node)] += 1
            continue
        behind[base_name(node)] += 1
        accepted += _is_accepted(node, iommu)
    mapped = [node for node in root.walk() if "iommu-map" in node.properties and _is_enabled(node)]
    iommus = [node for node in root.walk() if "#iommu-cells" in node.properties]
    return Board(
        file=file,
        model=" ".join(root.strings("model")),
        devices=len(devices),
        behind=behind,
        accepted=accepted,
        behind_disabled=behind_disabled,
        mapped=tuple(sorted({base_name(node) for node in mapped})),
        iommus=_kinds(node for node in iommus if _is_enabled(node)),
        disabled_iommus=_kinds(node for node in iommus if not _is_enabled(node)),
    )


def _devices(root: Node) -> Iterator[Node]:
    """Yield the nodes of platform and AMBA devices.

    Some devices with ``iommus`` are not created at boot but by the driver of their parent, such as
    the controller below the glue device of dwc3.
    """
    made_at_boot = {planned.node for planned in population(root)}
    for node in root.walk():
        is_made_by_driver = {"iommus", "compatible"} <= node.properties.keys() and _is_enabled(node)
        if node in made_at_boot or is_made_by_driver:
            yield node


def _is_enabled(node: Node) -> bool:
    return all(is_available(ancestor) for ancestor in _with_ancestors(node))


def _with_ancestors(node: Node) -> Iterator[Node]:
    current: Node | None = node
    while current:
        yield current
        current = current.parent


def _is_accepted(device: Node, iommu: Node) -> bool:
    """Return whether VFIO accepts the device.

    __vfio_register_dev() requires IOMMU_CAP_CACHE_COHERENCY, which few drivers report.
    """
    if is_compatible(iommu, SMMU_V3):
        return _is_coherent(iommu)
    if is_compatible(iommu, SMMU):
        return _is_coherent(iommu) or _is_coherent(device)
    return is_compatible(iommu, QCOM_IOMMU)


def _is_coherent(node: Node) -> bool:
    """Return what of_dma_is_coherent() returns for the node."""
    for ancestor in _with_ancestors(node):
        if "dma-coherent" in ancestor.properties:
            return True
        if "dma-noncoherent" in ancestor.properties:
            return False
    return False


def _kinds(iommus: Iterable[Node]) -> tuple[str, ...]:
    """Return the last compatible of each IOMMU, which is the least specific one."""
    return tuple(sorted({name for node in iommus for name in node.strings("compatible")[-1:]}))


def board_table(boards: Iterable[Board]) -> str:
    """Return a table with a row for each board."""
    heads = ("board", "devices", "behind an IOMMU", "accepted by VFIO", "IOMMU", "which devices")
    rows = (
        (
            f"{board.model} (`{board.file}`)",
            str(board.devices),
            str(sum(board.behind.values())),
            str(board.accepted),
            _iommus_of(board),
            _devices_of(board),
        )
        for board in sorted(boards, key=lambda board: board.file)
    )
    return _table(heads, rows)


def _iommus_of(board: Board) -> str:
    disabled = [kind for kind in board.disabled_iommus if kind not in board.iommus]
    kinds = [f"`{kind}`" for kind in board.iommus] + [f"`{kind}` (disabled)" for kind in disabled]
    return ", ".join(kinds) or "none"


def _devices_of(board: Board) -> str:
    parts = [_counted(board.behind)] if board.behind else []
    if board.behind_disabled:
        parts.append("if it is enabled: " + _counted(board.behind_disabled))
    if board.mapped:
        parts.append("by `iommu-map`: " + ", ".join(board.mapped))
    return "; ".join(parts)


def _counted(names: Mapping[str, int]) -> str:
    ordered = sorted(names.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {number}" if number > 1 else name for name, number in ordered)


def maker_table(boards: Sequence[Board]) -> str:
    """Return a table with the number of boards of each maker, and of all."""
    heads = (
        "directory",
        "boards",
        "with an IOMMU",
        "with devices behind it",
        "with devices that VFIO accepts",
        "with `iommu-map`",
    )
    makers = sorted({board.maker for board in boards})
    rows = [
        (f"`{maker}`", *_numbers([board for board in boards if board.maker == maker]))
        for maker in makers
    ]
    return _table(heads, [*rows, ("all", *_numbers(boards))])


def _numbers(boards: Sequence[Board]) -> list[str]:
    numbers = (
        len(boards),
        sum(bool(board.iommus) for board in boards),
        sum(bool(board.behind) for board in boards),
        sum(bool(board.accepted) for board in boards),
        sum(bool(board.mapped and board.iommus) for board in boards),
    )
    return [f"{number:,}" for number in numbers]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("|  |", "| |")


def tables() -> dict[str, str]:
    """Return the tables of the page by their names."""
    paths = device_trees()
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        boards = list(workers.map(survey, paths, chunksize=16))
    well_known = [board for board in boards if board.file in WELL_KNOWN]
    jetsons = [survey(path) for path in jetson_device_trees()]
    return {"boards": board_table([*well_known, *jetsons]), "makers": maker_table(boards)}


def rewritten(page: str, parts: Mapping[str, str]) -> str:
    """Return the page with these tables between its comments."""
    for name, text in parts.items():
        pattern = rf"(<!-- {name}: [^\n]* -->\n).*?(<!-- {name} end -->)"
        old_table = re.search(pattern, page, flags=re.DOTALL)
        if old_table is None:
            raise ValueError(f"The page has no place for the table {name}")
        page = f"{page[: old_table.end(1)]}\n{text}\n{page[old_table.start(2) :]}"
    return page


def main() -> None:
    """Run the command line."""
    summary, _blank, text = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(usage=summary, description=text)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/hosts.md")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.dtb")
    options = parser.parse_args()
    if options.files:
        try:
            print(board_table(map(survey, options.files)), end="")
        except SimulatorError as error:
            sys.exit(str(error))
        return
    parts = tables()
    if options.write:
        PAGE.write_text(rewritten(PAGE.read_text(), parts))
    else:
        print("\n".join(parts.values()), end="")


if __name__ == "__main__":
    main()
