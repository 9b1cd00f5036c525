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
_BASES = (DEV, DEV + "/devices")
_BY_PATH, _BY_TAG = "by-path", "by-tag"
DIRECTORIES = tuple("%s/%s" % (base, kind) for base in _BASES for kind in (_BY_PATH, _BY_TAG))

# What stands for the target of something that is there and is no link.
NO_LINK = ""

# NAME_MAX in include/uapi/linux/limits.h
_LONGEST = 255


class Symlink(NamedTuple):
    """A link below ``base``, the directory of the nodes; ``kind`` is by what it names a device."""

    base: str
    kind: str
    name: str

    @classmethod
    def from_path(cls, path: str) -> Symlink:
        """Return the link of a path in DIRECTORIES."""
        directory, _slash, name = path.rpartition("/")
        base, _slash, kind = directory.rpartition("/")
        return cls(base, kind, name)

    @property
    def path(self) -> str:
        return "%s/%s" % (self.base, self.label)

    @property
    def label(self) -> str:
        """What it is called below where the nodes are."""
        return "%s/%s" % (self.kind, self.name)

    def target(self, nodes: Sequence[str]) -> str | None:
        """Return what it says for a device with ``nodes``; None if none of them is in its base."""
        for node in nodes:
            directory, _slash, name = node.rpartition("/")
            if directory == self.base:
                return "../" + name
        return None

    def node(self, target: str) -> str:
        """Return the node that it leads to with ``target``."""
        return "%s/%s" % (self.base, target.rpartition("/")[2])


class SymlinkPlan(NamedTuple):
    """Plans with the links that their devices shall have, and what has to go for the list."""

    plans: list[DevicePlan]
    steps: list[HostStep]
    problems: list[Problem]


def names(device: Identity, tag: str | None) -> tuple[str, ...]:
    """Return what the links to a device's nodes are called, below where the nodes are."""
    labels = []
    path = device.dt_path or device.acpi_path
    if path and is_plain_path(path[1:]) and len(path) <= _LONGEST:
        labels.append("%s/%s" % (_BY_PATH, path[1:].replace("/", ":")))
    if tag:
        labels.append("%s/%s" % (_BY_TAG, tag))
    return tuple(labels)


def targets(labels: Sequence[str], nodes: Sequence[str]) -> dict[str, str | None]:
    """Return what each link says, by its path; None if there is no node for it."""
    links = [Symlink.from_path("%s/%s" % (base, label)) for base in _BASES for label in labels]
    return {link.path: link.target(nodes) for link in links}


def paths(labels: Sequence[str], nodes: Sequence[str]) -> tuple[str, ...]:
    """Return the links that there are."""
    return tuple(path for path, target in targets(labels, nodes).items() if target)


def followed(path: str, target: str | None, nodes: Sequence[str]) -> str | None:
    """Return the target of a link that had ``target``, after its device got new ``nodes``."""
    return target and (Symlink.from_path(path).target(nodes) or target)


def node_of(path: str, target: str) -> str:
    """Return the node that a link leads to."""
    return Symlink.from_path(path).node(target)


def plan_symlinks(
    plans: Sequence[DevicePlan],
    tags: Mapping[Identity, str],
    present: Mapping[str, str],
    has_node: Callable[[str], bool],
) -> SymlinkPlan:
    """Return what has to be done to the links ``present`` in DIRECTORIES, for a whole list."""
    with_links: list[DevicePlan] = []
    problems: list[Problem] = []
    assigned: set[str] = set()
    for plan in plans:
        # Two devices can share a node of the tree; the link is the first one's.
        labels = tuple(label for label in _wanted(plan, tags) if label not in assigned)
        assigned.update(labels)
        with_links.append(_with_links(plan, labels, present, has_node))
        problems += _conflicts(plan.device, labels, present)
    unclaimed = {label for plan in plans for label in names(plan.device, None)}
    links = [Symlink.from_path(path) for path, target in present.items() if target != NO_LINK]
    steps = [
        HostStep(HostStepKind.REMOVE_LINK, link.path)
        for link in links
        if link.label not in assigned
        and (_is_ours(link, unclaimed) or not has_node(link.node(present[link.path])))
    ]
    return SymlinkPlan(with_links, steps, problems)


def _conflicts(
    device: Identity, labels: Sequence[str], present: Mapping[str, str]
) -> list[Problem]:
    return [
        Problem(
            (
                "%s: %s exists and is not a symbolic link, so the link to its node cannot be "
                "created. Move it away"
            )
            % (device.label, path),
            device,
        )
        for path in targets(labels, ())
        if present.get(path) == NO_LINK
    ]


def _wanted(plan: DevicePlan, tags: Mapping[Identity, str]) -> tuple[str, ...]:
    return names(plan.device, tags.get(plan.device)) if plan.is_for_vfio else ()


def _with_links(
    plan: DevicePlan,
    labels: tuple[str, ...],
    present: Mapping[str, str],
    has_node: Callable[[str], bool],
) -> DevicePlan:
    if not labels or (plan.is_bound_already and _is_right(plan, labels, present, has_node)):
        return plan._replace(links=labels)
    step = Step(StepKind.LINK_NODES, links=labels)
    return plan._replace(links=labels, steps=(*plan.steps, step))


def _is_right(
    plan: DevicePlan,
    labels: Sequence[str],
    present: Mapping[str, str],
    has_node: Callable[[str], bool],
) -> bool:
    wanted = targets(labels, plan.before.vfio_nodes)
    if all(present.get(path) == target for path, target in wanted.items()):
        return True
    # A container may have no nodes to link to.
    return not has_node(DEV)


def _is_ours(link: Symlink, labels: set[str]) -> bool:
    """Return whether nobody but this collection can have made it; others may have links by path."""
    return link.kind == _BY_TAG or link.label in labels
