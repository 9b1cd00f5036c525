# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which rule files udev reads, in which order, without those of this collection. Reads only.

``conf_files_list_strv`` in src/basic/conf-files.c of systemd.
"""

from __future__ import annotations

from typing import Collection, NamedTuple

from .._system import systemd_conf
from .._system.files import Files

# /lib is another directory only where systemd was built for a split /usr.
DIRECTORIES = (
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
)

# Actions of events.
ADD, BIND, CHANGE = "add", "bind", "change"


class Host(NamedTuple):
    """What rules can ask of the machine; ``architecture`` is as udev names it, None if unknown."""

    files: Files
    architecture: str | None = None
    set_by_others: Collection[str] = ()


class RuleText(NamedTuple):
    """A file of others, and whether udev reads it before ours."""

    path: str
    content: str
    is_before_ours: bool


def read(files: Files, ours: str) -> list[RuleText]:
    """Return the files of others that udev reads, in the order of their names."""
    our_name = ours.rpartition("/")[2]
    return [
        RuleText(path, content, path.rpartition("/")[2] < our_name)
        for path in systemd_conf.drop_in_files(files, DIRECTORIES, ".rules", ours)
        for content in [files.read_drop_in(path)]
        if content
    ]
