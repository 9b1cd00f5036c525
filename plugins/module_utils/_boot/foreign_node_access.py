# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which foreign udev rules give VFIO's nodes another group or mode than the list. Reads only."""

from __future__ import annotations

import re
from typing import Iterator, Mapping, NamedTuple, Sequence

from .. import _text
from .._discovery.devices import sysfs_dir
from .._model.device import Identity
from .._model.node_access import NodeAccess
from .._system.files import Files
from .._system.sysfs import Sysfs
from .._system.systemd_conf import systemd_version
from .foreign_rule_files import ADD, Host
from .foreign_udev import BEFORE_OURS, ForeignRules, names_set
from .played_rules import RuleFile, parsed_file
from .udev_device import ListedDevice, NodeDevice
from .udev_event import Event

_SETTING = re.compile(r"\b(?:GROUP|MODE)\s*[+:]?=(?!=)")
_OPTIONS = {"GROUP": "vfio_group", "MODE": "vfio_mode"}


class _Setting(NamedTuple):
    """A value that a rule gives to GROUP or MODE."""

    location: str
    value: str
    is_sure: bool = True


class _Node(NamedTuple):
    """A node, and whether our rules set its access at its own event."""

    device: NodeDevice
    path: str
    is_set_by_rules: bool


def warnings(
    sysfs: Sysfs, known: ForeignRules, devices: Sequence[Identity], access: NodeAccess
) -> list[str]:
    """Return a sentence for each foreign rule that gives nodes of these devices another access."""
    wanted = {"GROUP": access.group, "MODE": access.mode}
    numbers = _group_numbers(known.host.files) if access.group else {}
    texts = [text for text in known.texts if _SETTING.search(text.content)]
    version = systemd_version(known.host.files) if texts else None
    files = [parsed_file(text, version) for text in texts]
    host = known.host._replace(
        set_by_others=names_set(text for text in known.texts if text not in texts)
    )
    sentences: dict[str, None] = {}
    for device in devices if files else ():
        for node in _nodes(sysfs, device):
            for key, value in wanted.items():
                if value is not None:
                    sentences.update(
                        (_sentence(node, key, setting, value), None)
                        for setting in _settings(host, files, node, key)
                        if not _is_same(key, setting.value, value, numbers)
                    )
    return list(sentences)


def _nodes(sysfs: Sysfs, device: Identity) -> Iterator[_Node]:
    """Yield the nodes of the device and of its group, as it has them or will have them."""
    listed = ListedDevice(sysfs, device)
    directory = sysfs_dir(device)
    own = (sysfs.names(directory + "/vfio-dev") or ["vfio0"])[0]
    group = sysfs.link_name(directory + "/iommu_group") or "0"
    path = "%s/vfio-dev/%s" % (listed.path, own) if listed.path else ""
    node = "vfio/devices/" + own
    yield _Node(NodeDevice(sysfs, path, "vfio-dev", node, listed), "/dev/" + node, True)
    node = "vfio/" + group
    of_group = NodeDevice(sysfs, "devices/virtual/" + node, "vfio", node, None)
    yield _Node(of_group, "/dev/" + node, False)


def _settings(host: Host, files: Sequence[RuleFile], node: _Node, key: str) -> list[_Setting]:
    """Return the values that foreign rules may give to a node, against those of the list.

    The list's value for the node of a group is set by a command at the event of the device, which
    can come before or after that of the node.
    """
    event = Event(host, node.device, ADD)
    settings: list[_Setting] = []
    is_final = was_ours = False
    for file in files:
        if node.is_set_by_rules and not was_ours and file.phase != BEFORE_OURS:
            was_ours = True
            settings = settings if is_final else []
        for applied in event.apply(file.lines):
            for token in applied.line.tokens:
                if token.key != key or is_final:
                    continue
                location = "%s:%d" % (file.path, applied.line.number)
                value = event.expand(token.value)
                setting = _Setting(location, value or "", applied.is_sure)
                settings = [setting] if applied.is_sure else [*settings, setting]
                is_final = applied.is_sure and token.operator == ":="
    if node.is_set_by_rules and not was_ours and not is_final:
        return []
    return settings


def _group_numbers(files: Files) -> dict[str, str]:
    """Return the number of each group by its name, as udev accepts both."""
    lines = (line.split(":") for line in _text.lines(files.read("/etc/group") or ""))
    return {fields[0]: fields[2] for fields in lines if len(fields) > 2}


def _is_same(key: str, value: str, wanted: str, numbers: Mapping[str, str]) -> bool:
    if key == "MODE" and re.fullmatch("[0-7]+", value):
        return int(value, 8) == int(wanted, 8)
    return numbers.get(value, value) == numbers.get(wanted, wanted)


def _sentence(node: _Node, key: str, setting: _Setting, wanted: str) -> str:
    return (
        "%s gives %s another access than this list: %s %s, not %s. Remove that rule, or set "
        "`%s` to the same value"
        % (setting.location, node.path, key, setting.value or "unknown", wanted, _OPTIONS[key])
    )
