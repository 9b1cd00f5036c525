# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Links to the nodes of devices, by names that outlast the kernel's numbers. Pure.

What udev makes at boot by the rules in _boot, a run makes by these.
"""

from __future__ import annotations

from typing import Callable, Mapping, NamedTuple, Sequence

from .._model.device import Identity
from .._model.selector import is_plain_path
from .._model.steps import DevicePlan, HostStep, HostStepKind, Problem, Step, StepKind

DEV = "/dev/vfio"
# Groups have their nodes in the first, devices in the second.
_PLACES = (DEV, DEV + "/devices")
_BY_PATH, _BY_TAG = "by-path/", "by-tag/"
FOLDERS = tuple("%s/%s" % (place, kind[:-1]) for place in _PLACES for kind in (_BY_PATH, _BY_TAG))

# What stands for the target of something that is there and is no link.
NO_LINK = ""

# NAME_MAX in include/uapi/linux/limits.h
_LONGEST = 255


class Linking(NamedTuple):
    """Plans with the links that their devices shall have, and what has to go for the list."""

    plans: list[DevicePlan]
    steps: list[HostStep]
    problems: list[Problem]


def names(device: Identity, tag: str | None) -> tuple[str, ...]:
    """What the links to a device's nodes are called, below where the nodes are."""
    found = []
    path = device.dt_path or device.acpi_path
    if path and is_plain_path(path[1:]) and len(path) <= _LONGEST:
        found.append(_BY_PATH + path[1:].replace("/", ":"))
    if tag:
        found.append(_BY_TAG + tag)
    return tuple(found)


def targets(called: Sequence[str], nodes: Sequence[str]) -> dict[str, str | None]:
    """What each link says, by its path; None where there is no node for it."""
    return {"%s/%s" % (place, name): _target(place, nodes) for place in _PLACES for name in called}


def paths(called: Sequence[str], nodes: Sequence[str]) -> tuple[str, ...]:
    """The links that there are."""
    return tuple(path for path, target in targets(called, nodes).items() if target)


def followed(path: str, target: str | None, nodes: Sequence[str]) -> str | None:
    """What a link that had ``target`` says after its device got ``nodes``, maybe of new numbers."""
    return target and (_target(_place(path), nodes) or target)


def node_of(path: str, target: str) -> str:
    """The node that a link leads to."""
    return "%s/%s" % (_place(path), target.rpartition("/")[2])


def linking(
    plans: Sequence[DevicePlan],
    tags: Mapping[Identity, str],
    present: Mapping[str, str],
    has_node: Callable[[str], bool],
) -> Linking:
    """What has to be done to the links that are ``present`` in FOLDERS, for a whole list."""
    linked: list[DevicePlan] = []
    problems: list[Problem] = []
    taken: set[str] = set()
    for one in plans:
        # Two devices can share a node of the tree; the link is the first one's.
        mine = [name for name in _wanted(one, tags) if name not in taken]
        taken.update(mine)
        linked.append(_linked(one, tuple(mine), present, has_node))
        problems += [
            Problem(
                "%s: %s is in the way of the link to its node, and is no link. Move it away"
                % (one.device.label, path),
                one.device,
            )
            for path in targets(mine, ())
            if present.get(path) == NO_LINK
        ]
    left = {name for one in plans for name in names(one.device, None)}
    steps = [
        HostStep(HostStepKind.REMOVE_LINK, path)
        for path, target in present.items()
        if target != NO_LINK
        and _name(path) not in taken
        and (_is_ours(path, left) or not has_node(node_of(path, target)))
    ]
    return Linking(linked, steps, problems)


def _wanted(one: DevicePlan, tags: Mapping[Identity, str]) -> tuple[str, ...]:
    return names(one.device, tags.get(one.device)) if one.is_for_vfio else ()


def _linked(
    one: DevicePlan,
    mine: tuple[str, ...],
    present: Mapping[str, str],
    has_node: Callable[[str], bool],
) -> DevicePlan:
    if not mine or (one.is_bound_already and _is_right(one, mine, present, has_node)):
        return one._replace(links=mine)
    step = Step(StepKind.LINK_NODES, links=mine)
    return one._replace(links=mine, steps=(*one.steps, step))


def _is_right(
    one: DevicePlan,
    mine: Sequence[str],
    present: Mapping[str, str],
    has_node: Callable[[str], bool],
) -> bool:
    wanted = targets(mine, one.before.vfio_nodes)
    if all(present.get(path) == target for path, target in wanted.items()):
        return True
    # A container may have no nodes to link to.
    return not has_node(DEV)


def _is_ours(path: str, left: set[str]) -> bool:
    """Whether nobody but this collection can have made it; others may have links by path."""
    return _name(path).startswith(_BY_TAG) or _name(path) in left


def _place(path: str) -> str:
    return path.partition("/by-")[0]


def _name(path: str) -> str:
    return path[len(_place(path)) + 1 :]


def _target(place: str, nodes: Sequence[str]) -> str | None:
    found = (node.rpartition("/") for node in nodes)
    return next(("../" + name for folder, _slash, name in found if folder == place), None)
