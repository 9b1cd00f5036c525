# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Network interfaces in use, or that a boot configures, through all that is stacked on them."""

from __future__ import annotations

from typing import Callable, Mapping

from .. import _text
from .._system.sysfs import Sysfs
from .kinds import NETWORK, Hazard
from .use_kind import ClassCheck, Entry, UseKind, counted

# include/uapi/linux/if.h
_IFF_UP = 0x1
_UPPER = "upper_"
# Classes that sysfs shows to one network namespace alone: net/core/net-sysfs.c and
# net/wireless/sysfs.c.
_NAMESPACED = {"net": "network interface", "ieee80211": "wireless adapter"}


class Network(UseKind):
    name = NETWORK
    is_of_user_space = True

    @property
    def classes(self) -> Mapping[str, ClassCheck]:
        return {
            "net": ClassCheck(self._use_of_interface, judges_below=True),
            "bluetooth": ClassCheck(_use_of_bluetooth),
            "mdio_bus": ClassCheck(_use_of_phy),
        }

    @property
    def directories(self) -> Mapping[str, Callable[[Entry], list[Hazard] | None]]:
        return dict.fromkeys(_NAMESPACED, self._other_namespace)

    @property
    def configured(self) -> Mapping[str, ClassCheck]:
        return {"net": ClassCheck(self._configured_use, judges_below=True)}

    def _use_of_interface(self, entry: Entry) -> str | None:
        stack = self._stack(entry)
        if not any(_is_up(self.sysfs, path) for path, _interface in stack):
            return None
        networks = self.sources.networks
        indexes = [
            index
            for path, _interface in stack
            for index in [_text.number(self.sysfs.read(path + "/ifindex"))]
            if index is not None
        ]
        addresses = [address for index in indexes for address in networks.addresses.get(index, [])]
        about = list(addresses)
        if networks.default_routes.intersection(indexes):
            about.append("the default route")
        upper = [interface for _path, interface in stack[1:]]
        sentence = "network interface %s is up%s%s" % (
            entry.name,
            ", below " + ", ".join(upper) if upper else "",
            " with " + ", ".join(about) if about else "",
        )
        if self.sources.processes.address_of_this_run() in addresses:
            sentence += ", and this run is connected through it"
        return sentence

    def _configured_use(self, entry: Entry) -> str | None:
        for path, interface in self._stack(entry):
            file = self.sources.configured.interface(path, interface)
            if file:
                return "network interface %s is configured in %s" % (interface, file)
        return None

    def _stack(self, entry: Entry) -> list[tuple[str, str]]:
        """Return an interface and what is stacked on it (bond, bridge, VLAN): (path, name)."""
        stack: list[tuple[str, str]] = []
        waiting = [(entry.path, entry.name)]
        while waiting:
            path, interface = waiting.pop(0)
            if interface in [known for _path, known in stack]:
                continue
            stack.append((path, interface))
            waiting += [
                ("class/net/" + name[len(_UPPER) :], name[len(_UPPER) :])
                for name in self.sysfs.names(path)
                if name.startswith(_UPPER)
            ]
        return stack

    def _other_namespace(self, entry: Entry) -> list[Hazard] | None:
        # The directory goes with the last device in it.
        if entry.listing.directories:
            return None
        sentence = "a %s on it is in another network namespace (a container's)"
        return [Hazard(self.name, entry.name, sentence % _NAMESPACED[entry.name])]


def _use_of_bluetooth(entry: Entry) -> str | None:
    # hci_conn_add_sysfs in net/bluetooth/hci_sysfs.c.
    connections = [name for name in entry.listing.directories if name.startswith(entry.name + ":")]
    if not connections:
        return None
    count = counted(str(len(connections)), "connection")
    return "bluetooth controller %s has %s" % (entry.name, count)


def _use_of_phy(entry: Entry) -> str | None:
    # phy_attach_direct in drivers/net/phy/phy_device.c.
    interface = entry.sysfs.link_name(entry.path + "/attached_dev")
    if interface is None or not _is_up(entry.sysfs, entry.path + "/attached_dev"):
        return None
    return "network interface %s is up on its PHY %s" % (interface, entry.name)


def _is_up(sysfs: Sysfs, path: str) -> bool:
    """Return whether the interface with this directory is up; so is one whose flags are odd.

    flags_show in net/core/net-sysfs.c.
    """
    flags = sysfs.read(path + "/flags")
    try:
        return flags is not None and bool(int(flags, 16) & _IFF_UP)
    except ValueError:
        return True
