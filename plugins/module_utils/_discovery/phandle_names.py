# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What properties of the device tree refer to other nodes, by their names. Pure data."""

from __future__ import annotations

import functools
import re

FIRST = "first"
"""Instead of a cells property: only the first cell of the list is a phandle."""

# of_supplier_bindings in drivers/of/property.c: properties that are lists of phandles, and what
# tells how many cells follow each; empty where none does. Without iommus: an IOMMU is known by its
# own directory in /sys. From cooling-device on they make no device link, but drivers find by them
# what they use: drivers/thermal/thermal_of.c, sound/soc/soc-core.c, drivers/mux/core.c,
# drivers/net/mdio/of_mdio.c and drivers/fpga/of-fpga-region.c.
_LISTS = {
    "clocks": "#clock-cells",
    "assigned-clocks": "#clock-cells",
    "assigned-clock-parents": "#clock-cells",
    "interconnects": "#interconnect-cells",
    "mboxes": "#mbox-cells",
    "io-channels": "#io-channel-cells",
    "io-backends": "#io-backend-cells",
    "dmas": "#dma-cells",
    "power-domains": "#power-domain-cells",
    "hwlocks": "#hwlock-cells",
    "nvmem-cells": "#nvmem-cell-cells",
    "phys": "#phy-cells",
    "pwms": "#pwm-cells",
    "resets": "#reset-cells",
    "msi-parent": "#msi-cells",
    "access-controllers": "#access-controller-cells",
    "pses": "#pse-cells",
    "thermal-sensors": "#thermal-sensor-cells",
    "interrupts-extended": "#interrupt-cells",
    "extcon": "",
    "wakeup-parent": "",
    "leds": "",
    "backlight": "",
    "panel": "",
    "power-supplies": "",
    "cooling-device": "#cooling-cells",
    "sound-dai": "#sound-dai-cells",
    # Of audio-graph-card2: the ports of its interfaces.
    "links": "",
    "mux-controls": "#mux-control-cells",
    "mux-states": "#mux-state-cells",
    "phy-handle": "",
    "fpga-mgr": "",
    "fpga-bridges": "",
    # drivers/net/pcs, drivers/net/phy/sfp-bus.c, drivers/mmc/core/pwrseq.c,
    # drivers/net/mdio/mdio-mux.c.
    "pcs-handle": "",
    "pcsphy-handle": "",
    "sfp": "",
    "mmc-pwrseq": "",
    "mdio-parent-bus": "",
    # fwnode_get_phy_node in drivers/net/phy/phy_device.c; devm_usb_get_phy_by_phandle in
    # drivers/usb/phy/phy.c, ci_hdrc_imx_probe in drivers/usb/chipidea/ci_hdrc_imx.c.
    "phy": FIRST,
    "phy-device": FIRST,
    "usb-phy": "",
    "fsl,usbphy": "",
    "fsl,usbmisc": FIRST,
    # dsa_port_parse_of in net/dsa/dsa.c; drivers/net/ethernet/freescale.
    "ethernet": FIRST,
    "tbi-handle": "",
    "fsl,fman-mac": "",
    "fsl,fman-ports": "",
    "ptp-timer": "",
    "ptimer-handle": "",
    # The parts of a screen, by their ports: drivers/gpu/drm/drm_of.c, rockchip_drm_drv.c,
    # drivers/gpu/ipu-v3; sun4i_drv_probe in drivers/gpu/drm/sun4i/sun4i_drv.c.
    "ports": "",
    "allwinner,pipelines": "",
    # drivers/firmware: ti_sci.c, meson/meson_sm.c, arm_scmi; drivers/soc: qcom/qcom_aoss.c,
    # qcom/smem_state.c, qcom/ice.c, amlogic/meson-canvas.c, ti/k3-ringacc.c, sunxi/sunxi_sram.c;
    # drivers/interconnect/qcom/bcm-voter.c, drivers/cpufreq/qcom-cpufreq-hw.c,
    # drivers/remoteproc/mtk_scp.c, drivers/memory/mtk-smi.c, drivers/devfreq/devfreq.c,
    # drivers/media/platform/renesas/rcar-fcp.c, drivers/gpu/drm/msm/adreno, drivers/opp/of.c.
    "ti,sci": FIRST,
    "secure-monitor": "",
    "shmem": "",
    "qcom,qmp": "",
    "qcom,smem-states": "#qcom,smem-state-cells",
    "qcom,ice": "",
    "amlogic,canvas": "",
    "ti,ringacc": "",
    "allwinner,sram": FIRST,
    "qcom,bcm-voters": "",
    "qcom,freq-domain": FIRST,
    "mediatek,scp": "",
    "mediatek,smi": "",
    "mediatek,larb": "",
    "mediatek,larbs": "",
    "mediatek,cci": "",
    "devfreq": "",
    "devfreq-events": "",
    "renesas,fcp": "",
    "qcom,gmu": "",
    "performance-domains": "#performance-domain-cells",
    # gpiochip_add_pin_ranges in drivers/gpio/gpiolib-of.c.
    "gpio-ranges": FIRST,
}
_SHARED = re.compile(r"(.*[,-])?syscon([,-].*)?|.*,(grf|pmugrf)|regmap")
_ADAPTER = re.compile(
    r"(.*[,-])?ddc(-i2c-bus|-i2c|-bus)?|(.*[,-])?(i2c|edid)-(bus|parent|adapter|i2c)"
)
# The same for the properties that have many names: of sound cards (sound/soc) and of memory on the
# chip (of_gen_pool_get in lib/genalloc.c). In the last but one, drivers of other devices write to
# its registers: drivers/mfd/syscon.c.
_PATTERNS = (
    (re.compile(r"(?!.*,nr-gpios)(.*-)?gpios?"), "#gpio-cells"),
    (re.compile(r".*-supply|pinctrl-\d+"), ""),
    (re.compile(r"(.*[,-])?(audio-(codec|cpu|platform)|aux-devs|dais|(i2s|ssi)-controller)"), ""),
    (re.compile(r"(.*[,-])?(a?s|is?)ram"), FIRST),
    (_SHARED, FIRST),
    (_ADAPTER, ""),
)

# What names shared registers otherwise is of a vendor, or is one of a few names.
_OF_VENDOR = re.compile(
    r"[^#].*,.*|.+-regmap|regmap-.+|gpr|infracfg|intf_mode|pm_qos|subctrl-vbase"
)
# Of these, names of what is a number: property-units.yaml of the device tree's schema and the
# bindings of pins, keys and buffers.
_NUMBERS = re.compile(
    r".*[,-](.?(hz|sec)|[mkun]?s|ps|mm|bits|bytes|ohms?|percent|celsius|(micro|nano|milli)\w+|bps"
    r"|adjustment|btn-cfg|channels?|codes?|count|delays?|depth|dly\d*|edge|events|fifos|functions?"
    r"|keycodes?|lanes|level|mask|max\w*|num|offset|pins?|pinmux|rate|ratio|regions|sensors|shift"
    r"|sizes?|spis|strength|strobe-sel|tap|threshold|type|users|v?m?ids?|values?|width)"
    r"|.*[,-](n|num|max|min)[,-].*|.*,n(r-)?gpios?|.*-rm-range-.*"
)


@functools.lru_cache(maxsize=None)
def size_name(name: str) -> str | None:
    """Return the name of the cells property of a phandle list, or None for other properties."""
    if name in _LISTS:
        return _LISTS[name]
    return next((size for pattern, size in _PATTERNS if pattern.fullmatch(name)), None)


@functools.lru_cache(maxsize=None)
def may_share_registers(name: str) -> bool:
    """Return whether a driver may find by the property registers that it shares with others.

    The name can be any (syscon_regmap_lookup_by_phandle in drivers/mfd/syscon.c), so that what it
    refers to decides.
    """
    if _SHARED.fullmatch(name):
        return True
    is_of_vendor = _OF_VENDOR.fullmatch(name) and not _NUMBERS.fullmatch(name)
    return bool(is_of_vendor) and size_name(name) is None


def names_adapter(name: str) -> bool:
    """Return whether a driver gets an I2C adapter by the property, and holds it while it is bound.

    of_find_i2c_adapter_by_node and of_get_i2c_adapter_by_node in drivers/i2c/i2c-core-of.c: vc4 and
    exynos (``ddc``), panels, bridges and connectors (``ddc-i2c-bus``), drivers/net/phy/sfp.c and
    multiplexers.
    """
    return bool(_ADAPTER.fullmatch(name))
