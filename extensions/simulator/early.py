# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nodes that Linux sets up before it creates devices, most of which never become devices.

The tables depend on the configuration of the kernel. These are from the Image of Debian's
linux-image-6.12.117+deb13-arm64, which has all entries that the guest's kernel has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .devicetree import Node
from .nodes import find_interrupt_parent, first_cell, is_available, is_compatible, phandles


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# IRQCHIP_DECLARE in drivers/irqchip.
_CONTROLLERS = _words(
    """
    allwinner,sun50i-h6-r-intc allwinner,sun6i-a31-r-intc allwinner,sun6i-a31-sc-nmi
    allwinner,sun7i-a20-sc-nmi allwinner,sun9i-a80-nmi arm,arm1176jzf-devchip-gic
    arm,arm11mp-gic arm,cortex-a15-gic arm,cortex-a7-gic arm,cortex-a9-gic arm,gic-400
    arm,gic-v3 arm,pl390 brcm,bcm2835-armctrl-ic brcm,bcm2836-armctrl-ic brcm,bcm2836-l1-intc
    fsl,ls1021a-extirq fsl,ls1043a-extirq fsl,ls1088a-extirq marvell,odmi-controller
    mediatek,mt6577-sysirq mediatek,mtk-cirq mstar,mst-intc nvidia,tegra20-ictlr
    nvidia,tegra210-ictlr nvidia,tegra30-ictlr qcom,msm-8660-qgic qcom,msm-qgic2
    socionext,synquacer-exiu
    """
)
# irq-imx-gpcv2.c clears OF_POPULATED again, because the node also has a driver for power domains.
_HANDED_BACK = frozenset({"fsl,imx7d-gpc", "fsl,imx8mq-gpc"})
# CLK_OF_DECLARE in drivers/clk
_CLOCKS = _words(
    """
    apm,xgene-device-clock apm,xgene-pcppll-clock apm,xgene-pcppll-v2-clock apm,xgene-pmd-clock
    apm,xgene-socpll-clock apm,xgene-socpll-v2-clock fixed-clock fixed-factor-clock
    fsl,b4420-clockgen fsl,b4860-clockgen fsl,ls1012a-clockgen fsl,ls1021a-clockgen
    fsl,ls1028a-clockgen fsl,ls1043a-clockgen fsl,ls1046a-clockgen fsl,ls1088a-clockgen
    fsl,ls2080a-clockgen fsl,lx2160a-clockgen fsl,p2041-clockgen fsl,p3041-clockgen
    fsl,p4080-clockgen fsl,p5020-clockgen fsl,p5040-clockgen fsl,qoriq-clockgen-1.0
    fsl,qoriq-clockgen-2.0 fsl,qoriq-core-mux-1.0 fsl,qoriq-core-mux-2.0 fsl,qoriq-core-pll-1.0
    fsl,qoriq-core-pll-2.0 fsl,qoriq-platform-pll-1.0 fsl,qoriq-platform-pll-2.0
    fsl,qoriq-sysclk-1.0 fsl,qoriq-sysclk-2.0 fsl,t1023-clockgen fsl,t1040-clockgen
    fsl,t2080-clockgen fsl,t4240-clockgen google,gs101-cmu-misc google,gs101-cmu-top
    hisilicon,hi6220-acpu-sctrl hisilicon,hi6220-pmctrl nvidia,tegra124-car nvidia,tegra132-car
    nvidia,tegra210-car renesas,cpg-div6-clock rockchip,px30-cru rockchip,px30-pmucru
    rockchip,rk3308-cru rockchip,rk3328-cru rockchip,rk3368-cru rockchip,rk3399-cru
    rockchip,rk3399-pmucru rockchip,rk3568-cru rockchip,rk3568-pmucru rockchip,rk3576-cru
    rockchip,rk3588-cru samsung,exynos5433-cmu-apollo samsung,exynos5433-cmu-atlas
    samsung,exynos5433-cmu-bus0 samsung,exynos5433-cmu-bus1 samsung,exynos5433-cmu-bus2
    samsung,exynos5433-cmu-cpif samsung,exynos5433-cmu-mif samsung,exynos5433-cmu-peric
    samsung,exynos5433-cmu-peris samsung,exynos5433-cmu-top samsung,exynos7-clock-aud
    samsung,exynos7-clock-ccore samsung,exynos7-clock-fsys0 samsung,exynos7-clock-fsys1
    samsung,exynos7-clock-mscl samsung,exynos7-clock-peric0 samsung,exynos7-clock-peric1
    samsung,exynos7-clock-peris samsung,exynos7-clock-top0 samsung,exynos7-clock-top1
    samsung,exynos7-clock-topc samsung,exynos7885-cmu-peri samsung,exynos7885-cmu-top
    samsung,exynos850-cmu-cpucl0 samsung,exynos850-cmu-cpucl1 samsung,exynos850-cmu-peri
    samsung,exynos850-cmu-top samsung,exynosautov9-cmu-top samsung,exynosautov920-cmu-top
    """
)
# CLK_OF_DECLARE_DRIVER there: the clocks are set up early, and the kernel still creates a device.
_CLOCKS_OF_DEVICES = _words(
    """
    allwinner,sun50i-h5-rtc allwinner,sun50i-h6-rtc allwinner,sun6i-a31-rtc
    allwinner,sun8i-a23-rtc allwinner,sun8i-h3-rtc allwinner,sun8i-r40-rtc
    allwinner,sun8i-v3-rtc hisilicon,hi3660-crgctrl hisilicon,hi6220-aoctrl
    hisilicon,hi6220-mediactrl hisilicon,hi6220-sysctrl mediatek,mt6797-infracfg
    mediatek,mt8173-infracfg
    """
)


def taken_early(root: Node) -> set[Node]:
    """Return the nodes that are OF_POPULATED early, so that no devices are created for them."""
    clocks = {node for node in _available(root) if is_compatible(node, _CLOCKS)}
    return clocks | _interrupt_controllers(root)


def set_up_early(root: Node) -> set[Node]:
    """Return the nodes with FWNODE_FLAG_INITIALIZED, for which no consumer has to wait."""
    clocks = {node for node in _available(root) if is_compatible(node, _CLOCKS_OF_DEVICES)}
    return clocks | taken_early(root)


def _available(root: Node) -> Iterator[Node]:
    return (node for node in root.walk() if is_available(node))


def _interrupt_controllers(root: Node) -> set[Node]:
    """Return root controllers and those whose parent is initialized, as of_irq_init() does."""
    by_phandle = phandles(root)
    waiting = {
        node: _parent(node, by_phandle)
        for node in _available(root)
        if "interrupt-controller" in node.properties
        and is_compatible(node, _CONTROLLERS | _HANDED_BACK)
    }
    ready: set[Node] = set()
    while True:
        reached = {node for node, parent in waiting.items() if parent is None or parent in ready}
        if reached == ready:
            return {node for node in ready if not is_compatible(node, _HANDED_BACK)}
        ready = reached


def _parent(node: Node, by_phandle: Mapping[int, Node]) -> Node | None:
    phandle = first_cell(node, "interrupts-extended")
    parent = by_phandle.get(phandle) if phandle else None
    parent = parent or find_interrupt_parent(node, by_phandle)
    return None if parent is node else parent
