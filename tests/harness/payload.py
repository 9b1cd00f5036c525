# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""python -m tests.harness.payload MODULE...

Prints for each module how many bytes are sent to the host for one call of it. It runs in a process
of its own, because ansible-core finds no collection in a process that has imported one.
"""

from __future__ import annotations

import sys

from ansible.executor import module_common
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, module_loader
from ansible.template import Templar


def payload_size(name: str) -> int:
    """Return the number of bytes that are sent to the host for one call of a module."""
    module = module_loader.find_plugin_with_context(name)
    built = module_common.modify_module(
        module_name=module.resolved_fqcn,
        module_path=module.plugin_resolved_path,
        module_args={},
        templar=Templar(DataLoader()),
        task_vars={"ansible_python_interpreter": "/usr/bin/python3"},
        module_compression="ZIP_DEFLATED",
    )
    return len(built.b_module_data)


if __name__ == "__main__":
    init_plugin_loader()
    for module in sys.argv[1:]:
        print(payload_size(module))
