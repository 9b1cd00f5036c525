#!/usr/bin/python
# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images of the initramfs, rebuilt and checked."""

from __future__ import annotations

DOCUMENTATION = r"""
module: initramfs
short_description: Rebuild the initramfs and check that the device policy is in it
version_added: 0.1.0
author:
  - armfleet.vfio contributors (@armfleet)
description:
  - Rebuilds the initramfs of each kernel of the host with initramfs-tools or dracut, and reads each
    image with C(lsinitramfs) or C(lsinitrd). An image must contain the files that
    M(armfleet.vfio.host_policy) wrote and the modules that these need, or, after a release, must no
    longer contain the files.
  - Fails if an image was not rebuilt or if anything is missing in it. C(update-initramfs) itself
    does not report that an image was not rebuilt if its configuration disables updates or if
    C(/boot) is mounted read-only.
  - After a failure, the next run of M(armfleet.vfio.host_policy) returns
    RV(armfleet.vfio.host_policy#module:initramfs_command) again.
  - Rebuilds the images whenever it is called. Call it only if
    RV(armfleet.vfio.host_policy#module:initramfs_command) is not null, as the role
    P(armfleet.vfio.passthrough#role) does.
options:
  require_image:
    description: >-
      Whether to fail if there is no image to rebuild, as on a host that boots without an initramfs.
    type: bool
    default: false
extends_documentation_fragment:
  - armfleet.vfio.attributes
attributes:
  diff_mode:
    description: Images have no diff.
    support: none
  idempotent:
    description: The images are rebuilt at each run.
    support: none
seealso:
  - module: armfleet.vfio.host_policy
"""

EXAMPLES = r"""
- name: Apply the policy list
  armfleet.vfio.host_policy:
    devices:
      - compatible: acme,crypto-v2
        policy: vfio
  register: applied

- name: Rebuild the initramfs
  armfleet.vfio.initramfs:
  when: applied.initramfs_command is not none
"""

RETURN = r"""
tool:
  description: Tool that builds the initramfs of this host, V(initramfs-tools) or V(dracut).
  returned: success
  type: str
  sample: initramfs-tools
command:
  description: Command that was run, or in check mode would be run.
  returned: success
  type: list
  elements: str
  sample: [/usr/sbin/update-initramfs, -u, -k, all]
images:
  description: Images of the installed kernels; empty if there is none.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Path of the image.
      returned: always
      type: str
      sample: /boot/initrd.img-6.12.117-arm64
    kernel:
      description: Release of its kernel.
      returned: always
      type: str
      sample: 6.12.117-arm64
    rebuilt:
      description: Whether the command rebuilt the image, or in check mode would rebuild it.
      returned: always
      type: bool
      sample: true
    missing:
      description: Files and modules that the image must contain but lacks; empty in check mode.
      returned: always
      type: list
      elements: str
      sample: []
    unexpected:
      description: >-
        Files of the last-applied configuration that the image must not contain but does; empty in
        check mode.
      returned: always
      type: list
      elements: str
      sample: []
"""

from typing import Any

from ansible_collections.armfleet.vfio.plugins.module_utils import _text
from ansible_collections.armfleet.vfio.plugins.module_utils._ansible_module import (
    create_module,
    fail,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.initramfs_images import (
    rebuild,
    result,
    run,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files

SPEC: dict[str, Any] = {"argument_spec": {"require_image": {"type": "bool", "default": False}}}


def main() -> None:
    """Run the module."""
    module = create_module("initramfs", SPEC)
    try:
        rebuilt = rebuild(Files(), run, module.params["require_image"], module.check_mode)
    except PolicyError as error:
        fail(module, error)
    for note in rebuilt.notes:
        module.warn(_text.printable_result(note))
    returned = _text.printable_result(result(rebuilt))
    if rebuilt.problems:
        fail(module, PolicyError(rebuilt.problems), **returned)
    module.exit_json(**returned)


if __name__ == "__main__":
    main()
