# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which DMA channels of a device are in use, and by whom: kind of use ``consumers``."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from .._system.sysfs import KernelBlockedError, Sysfs


class ChannelUse(NamedTuple):
    """Channels in use, as a sentence.

    It ``is_fatal`` if the kernel would free a channel that somebody still has: no driver of a
    platform or AMBA device has the device_release of struct dma_device, without which "it is not
    safe to unbind this driver while in use" (dma_async_device_register in drivers/dma/dmaengine.c).
    """

    sentence: str
    is_fatal: bool


class _Channel(NamedTuple):
    """``clients`` is its number of clients, ``client`` the device that asked for it by name."""

    path: str
    name: str
    clients: str
    client: str | None

    @property
    def label(self) -> str:
        if self.client:
            return "%s by %s" % (self.name, self.client)
        plural = "" if self.clients == "1" else "s"
        return "%s by %s client%s of the kernel" % (self.name, self.clients, plural)


def has_channels(sysfs: Sysfs, path: str, names: Sequence[str]) -> bool:
    """Return whether a directory's entries are DMA channels."""
    return path.endswith("/dma") and any(
        sysfs.exists("%s/%s/in_use" % (path, name)) for name in names[:1]
    )


def use_of_channels(sysfs: Sysfs, path: str, names: Sequence[str]) -> ChannelUse | None:
    """Return the use of the DMA channels in a directory, if some are in use.

    Their counts (in_use_show in drivers/dma/dmaengine.c) can be read when nobody is taking or
    returning a channel; a driver that crashed doing so blocks them for good.
    """
    try:
        counts = sysfs.read_locked(["%s/%s/in_use" % (path, name) for name in names])
    except KernelBlockedError:
        return ChannelUse("the kernel does not report whether its DMA channels are in use", True)
    used = [
        _Channel(channel, name, count, sysfs.link_name(channel + "/slave"))
        for name, count in zip(names, counts)
        for channel in ["%s/%s" % (path, name)]
        if count not in (None, "0")
    ]
    if not used:
        return None
    sentence = "%d of its %d DMA channel%s %s in use: %s" % (
        len(used),
        len(names),
        "" if len(names) == 1 else "s",
        "is" if len(used) == 1 else "are",
        ", ".join(channel.label for channel in used),
    )
    if all(channel.client for channel in used):
        supplier = path.rpartition("/")[0]
        goes_first = all(_client_goes_first(sysfs, channel, supplier) for channel in used)
        return ChannelUse(sentence, not goes_first)
    # async_tx_init in crypto/async_tx/async_tx.c takes all that are not private.
    if sysfs.exists("module/async_tx"):
        holders = sysfs.names("module/async_tx/holders")
        needed = ", for " + ", ".join(holders) if holders else ""
        sentence += " (module async_tx claims all channels%s)" % needed
    return ChannelUse(sentence, True)


def _client_goes_first(sysfs: Sysfs, channel: _Channel, supplier: str) -> bool:
    """Return whether the kernel unbinds a channel's client first, which returns the channel.

    It does with consumers by managed device links: device_links_unbind_consumers in
    drivers/base/core.c. Before Linux 5.11 their names have no bus.
    """
    name = supplier.rpartition("/")[2]
    bus = sysfs.link_name(supplier + "/subsystem")
    return any(
        sysfs.read("%s/slave/supplier:%s/status" % (channel.path, label)) == "active"
        for label in ("%s:%s" % (bus, name), name)
    )
