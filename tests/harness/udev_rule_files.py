# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Generated files of udev rules: some for what udev drops of them, others for what they do.

All files of a seed are the same in every run.
"""

from __future__ import annotations

import random
from typing import NamedTuple

_KEYS = (
    *("ACTION", "DEVPATH", "KERNEL", "SYMLINK", "NAME", "ENV", "CONST", "TAG", "SUBSYSTEM"),
    *("DRIVER", "ATTR", "SYSCTL", "KERNELS", "SUBSYSTEMS", "DRIVERS", "ATTRS", "TAGS", "TEST"),
    *("PROGRAM", "IMPORT", "RESULT", "OPTIONS", "MODE", "SECLABEL", "RUN", "GOTO", "LABEL"),
    *("nonsense", "kernel", ""),
)
_ATTRIBUTES = (
    *("", "", "", "{}", "{a}", "{arch}", "{virt}", "{0644}", "{9}", "{program}", "{builtin}"),
    *(
        "{file}",
        "{db}",
        "{parent}",
        "{cmdline}",
        "{driver_override}",
        "{DRIVER}",
        "{a",
        "{device/a}",
        # What some versions drop.
        "{cvm}",
        "{MODALIAS}",
    ),
)
_OPERATORS = ("==", "==", "=", "+=", "!=", "-=", ":=", " == ", "= ", "===", "", " ")
_CONDITIONS_OF_ANY_DEVICE = (
    'TEST=="/bin/sh"',
    'TEST=="/etc/nothing"',
    'TEST!="/usr/bin/env"',
    'CONST{arch}=="arm64"',
    'CONST{arch}=="x86-64"',
    r'KERNEL==e"\x62*"',
    'RESULT==""',
    'NAME==""',
    'DRIVER==""',
    'PROGRAM="/bin/false"',
    'PROGRAM="/bin/echo a", RESULT=="a"',
    'TAG=="nothing"',
    'DRIVER!="nothing"',
    'DRIVERS=="nothing"',
    'ENV{ID_NOTHING}=="1"',
    'ENV{DEVPATH}=="*.plain"',
    'ENV{ACTION}=="add"',
)
_VALUES = (
    *(
        "a",
        "",
        "?*",
        "a|b",
        "kmod load x",
        "path_id",
        "net_driver",
        "tpm2_id x",
        "nothing x",
        "%k",
        "$env{A}",
        "$attr{",
        "watch",
    ),
    *("link_priority=1", "link_priority=x", "log_level=debug", "log_level=x", "string_escape=none"),
    *("static_node=x", "0660", r"a\"b", "a'b", r"a\\b", "a#b", "a\tb", "é", "end", "end", "far"),
)
_QUOTED = ('"%s"', '"%s"', '"%s"', 'e"%s"', 'i"%s"', 'ei"%s"', 'x"%s"', "'%s'", "%s", '"%s')
_SEPARATORS = (
    ", ",
    ", ",
    ", ",
    ",",
    " ",
    "",
    ",,",
    ", \\\n  ",
    ", \\\n# mine\n  ",
    ", \\\n# mine \\\n",
)
_ENDS = (
    "\n",
    "\n",
    "\n",
    "\n",
    " # mine\n",
    ",\n",
    "\\\n",
    "\\ \n",
    "\r\n",
    "\r",
    "\n\n",
    " nonsense\n",
)
_WHOLE = ("# mine\n", "# mine \\\n", "\n", 'ENV{B}="1"\n', 'LABEL="end"\n', 'GOTO="end"\n', "\\\n")


class Scratch(NamedTuple):
    """A device that rules may do anything to, of the device tree's node ``/soc/NODE``."""

    bus: str
    name: str
    node: str
    compatible: str


def odd_file(seed: int) -> str:
    """Return a file with rules of which udev drops many."""
    chance = random.Random(seed)
    lines = [_odd_line(chance) for _number in range(chance.randint(1, 8))]
    return "".join(lines)


def _odd_line(chance: random.Random) -> str:
    if chance.random() < 0.25:
        return chance.choice(_WHOLE)
    is_plain = chance.random() < 0.5
    tokens = [
        _plain_token(chance) if is_plain or chance.random() < 0.6 else _odd_token(chance)
        for _number in range(chance.randint(1, 4))
    ]
    line = tokens[0]
    for token in tokens[1:]:
        line += (", " if is_plain else chance.choice(_SEPARATORS)) + token
    return line + chance.choice(_ENDS)


def _plain_token(chance: random.Random) -> str:
    return chance.choice(
        (
            *('KERNEL=="a"', 'ENV{A}="b"', 'ATTR{a}=="b"', 'ATTR{a}="b"', 'RUN+="/bin/true"'),
            *('GOTO="end"', 'LABEL="end"', 'TAG+="systemd"', 'OPTIONS+="watch"', 'TEST=="a"'),
        )
    )


def _odd_token(chance: random.Random) -> str:
    key, attribute = chance.choice(_KEYS), chance.choice(_ATTRIBUTES)
    value = chance.choice(_QUOTED).replace("%s", chance.choice(_VALUES))
    return f"{key}{attribute}{chance.choice(_OPERATORS)}{value}"


def effective_file(seed: int, scratch: Scratch) -> str:
    """Return a file whose rules may set the override of the scratch device, each another one."""
    chance = random.Random(seed)
    conditions = _conditions(scratch)
    lines = []
    for number in range(chance.randint(1, 7)):
        chosen = chance.sample(conditions, chance.choice((0, 1, 1, 2, 2, 3)))
        acts = [chance.choice(_acts(scratch, f"v{seed}-{number}", chance))]
        tokens = [*chosen, *acts]
        if chance.random() < 0.2:
            chance.shuffle(tokens)
        separator = chance.choice((", ", ", ", ", ", ",", " ", ", \\\n  ", ", \\\n  # mine\n  "))
        lines.append(separator.join(tokens) + chance.choice(("\n",) * 9 + (" # mine\n",)))
    return "".join(lines) + 'LABEL="end"\n'


def _acts(scratch: Scratch, value: str, chance: random.Random) -> list[str]:
    own = f"/sys/bus/{scratch.bus}/devices/{scratch.name}"
    return [
        f'ATTR{{driver_override}}="{value}"',
        f'ATTR{{driver_override}}="{value}"',
        f'ATTR{{driver_override}}="{value}-$kernel"',
        f'ENV{{P}}="{value}", ATTR{{driver_override}}="$env{{P}}"',
        f'ATTR{{driver_override}}="{value}-%E{{OF_NAME}}$$"',
        f'ATTR{{[{scratch.bus}/{scratch.name}]driver_override}}="{value}"',
        f'ATTR{{{own}/driver_override}}="{value}"',
        f'ATTR{{subsystem/devices/{scratch.name}/driver_override}}="{value}"',
        f"RUN+=\"/bin/sh -c 'echo {value} > /sys%p/driver_override'\"",
        f"RUN+=\"/bin/sh -c 'echo {value} > {own}/driver_override'\"",
        f'RUN+="/bin/echo {value} > {own}/driver_override"',
        f'ATTR{{../{scratch.name}/driver_override}}="{value}"',
        f'ATTR{{driver_override}}=e"{value}\\nx"',
        f'ATTR{{driver_override}}="{value} "',
        f'ATTR{{driver_override}}="{value}-$attr{{of_node/name}}-%n-$id"',
        f'ATTR{{driver_override}}="{value}-$nothing%q$env{{"',
        'ATTR{driver_override}=""',
        'ATTR{driver/unbind}="$kernel"',
        f"PROGRAM=\"/bin/sh -c 'echo {value} > /sys%p/driver_override'\"",
        f"RUN+=\"/bin/sh -c 'test -e /etc/nothing && echo {value} > /sys%p/driver_override'\"",
        f"RUN:=\"/bin/sh -c 'echo {value} > /sys$devpath/driver_override'\"",
        'RUN="/bin/true"',
        f'ENV{{P}}="{chance.choice("ab")}"',
        f'ENV{{P}}+="{chance.choice("ab")}"',
        'ENV{P}=""',
        'GOTO="end"',
        'GOTO="middle"',
        'LABEL="middle"',
    ]


def _conditions(scratch: Scratch) -> list[str]:
    return [
        *_name_conditions(scratch),
        *_property_conditions(scratch),
        *_CONDITIONS_OF_ANY_DEVICE,
        *_pattern_conditions(scratch),
    ]


def _name_conditions(scratch: Scratch) -> list[str]:
    name = scratch.name
    stem = scratch.node.partition("@")[0]
    return [
        'ACTION=="add"',
        'ACTION!="remove"',
        'ACTION=="bind|change"',
        f'SUBSYSTEM=="{scratch.bus}"',
        'SUBSYSTEM=="pci|usb"',
        'SUBSYSTEM!="pci"',
        f'KERNEL=="{name}"',
        f'KERNEL=="*.{stem}"',
        f'KERNEL==i"{name.upper()}"',
        f'KERNEL=="{name.upper()}"',
        'KERNEL=="[!a]?0*"',
        f'KERNELS=="{name}"',
        'KERNELS=="soc|platform"',
        'KERNELS=="nothing"',
        f'SUBSYSTEMS=="{scratch.bus}"',
        'SUBSYSTEMS=="pci"',
        f'DEVPATH=="*/{name}"',
        f'DEVPATH=="/devices/{name}"',
    ]


def _property_conditions(scratch: Scratch) -> list[str]:
    name, node, compatible = scratch.name, scratch.node, scratch.compatible
    stem = node.partition("@")[0]
    return [
        f'ENV{{MODALIAS}}=="of:N{stem}T*C{compatible}"',
        'ENV{MODALIAS}=="platform:*"',
        f'ATTR{{modalias}}=="*C{compatible}"',
        'ATTRS{modalias}=="of:Nsoc*"',
        f'ATTRS{{modalias}}=="*C{compatible}", KERNELS=="{name}"',
        'ATTR{missing}!="a"',
        f'ENV{{OF_FULLNAME}}=="/soc/{node}"',
        f'ENV{{OF_NAME}}!="{stem}"',
        f'ENV{{OF_COMPATIBLE_0}}=="{compatible}"',
        'ENV{OF_COMPATIBLE_1}==""',
        'ENV{OF_COMPATIBLE_1}=="?*"',
        'ENV{OF_COMPATIBLE_N}=="1"',
        'ENV{OF_ALIAS_0}==""',
        'ENV{P}=="a"',
        'ENV{P}=="a a|b|"',
        'ENV{P}!="b"',
        'ENV{NOBODY}==""',
    ]


def _pattern_conditions(scratch: Scratch) -> list[str]:
    return [
        f'ENV{{SUBSYSTEM}}!="{scratch.bus}"',
        'ENV{OF_COMPATIBLE_0}=="*[!a-z]plain|"',
        r'KERNEL=="b\003*|b00[0-9]000.[[:alpha:]]*"',
        r'KERNEL=="b00\3*"',
        f'KERNEL=="|{scratch.name}"',
        'KERNEL=="?*"',
        'KERNEL!=""',
        'KERNEL=="[b"',
        'SUBSYSTEM=="subsystem"',
        'SUBSYSTEMS=="?*", KERNELS=="platform"',
        'KERNELS!="platform|soc"',
        'ATTRS{missing}!="a"',
        'ATTR{of_node/name}=="plain"',
        'ATTR{of_node/compatible}=="acme,plain"',
        'ATTR{driver_override}=="(null)"',
        'ATTR{subsystem}=="platform"',
        'ATTR{uevent}=="?*"',
        'TEST=="of_node/compatible"',
        'TEST=="of_node/missing"',
        'TEST{0111}=="/bin/sh"',
        'TEST=="power"',
        'IMPORT{builtin}="kmod load nothing"',
        'IMPORT{builtin}!="kmod load nothing"',
        'IMPORT{cmdline}="root"',
        'IMPORT{file}="/etc/nothing"',
        'IMPORT{parent}="OF_NAME"',
        'SYMLINK!="a"',
        'OPTIONS+="nonsense"',
        'OPTIONS+="watch"',
        'TAG+="a"',
        'GROUP="0"',
    ]
