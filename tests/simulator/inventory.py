# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Inventories of simulated hosts, for ansible-playbook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from .host import Host

_SSH = Path(__file__).with_name("ssh")


def inventory(hosts: Sequence[Host]) -> str:
    """A YAML inventory with a group ``simulated``; ``ssh`` is played by a program of ours."""
    settings = {
        "ansible_connection": "ssh",
        "ansible_ssh_executable": str(_SSH),
        "ansible_ssh_args": "",
        "ansible_ssh_transfer_method": "piped",
        "ansible_pipelining": True,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    group = {
        "hosts": {host.name: {"ansible_host": str(host.folder)} for host in hosts},
        "vars": settings,
    }
    return yaml.safe_dump({"simulated": group}, sort_keys=False)
