# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Inventories of simulated hosts, for ansible-playbook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .host import Host

SSH = Path(__file__).with_name("ssh")
# A program of the simulator stands in for ``ssh``.
_SETTINGS = {
    "ansible_connection": "ssh",
    "ansible_user": "root",
    "ansible_ssh_executable": str(SSH),
    "ansible_ssh_args": "",
    "ansible_ssh_transfer_method": "piped",
    "ansible_pipelining": True,
    "ansible_python_interpreter": "/usr/bin/python3",
}


def inventory(hosts: Sequence[Host]) -> str:
    """Return a YAML inventory with a group ``simulated``."""
    addresses = {host.name: {"ansible_host": str(host.directory)} for host in hosts}
    return _group({"hosts": addresses, "vars": _SETTINGS})


def inventory_of_containers() -> str:
    """Return an inventory that connects to any hosts of ``simulated`` in podman's containers."""
    address = {"ansible_host": "podman:{{ inventory_hostname }}"}
    return _group({"vars": {**_SETTINGS, **address}})


def _group(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump({"simulated": content}, sort_keys=False)
