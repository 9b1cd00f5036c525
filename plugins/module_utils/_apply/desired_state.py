# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a call asks for on this host: the entries that count here and their claims. Reads only."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Mapping, NamedTuple, Sequence

from .._boot import boot_files, last_applied
from .._boot.last_applied import PREVIOUS, UNFINISHED, LastApplied
from .._discovery.devices import for_other_boards, has_devices, resolve_all, snapshot, with_all_ids
from .._errors import PolicyError, Problems
from .._model.claimed import Claimed
from .._model.device import Identity
from .._model.policy import DEFAULT, VFIO, Claim, Policy
from .._model.policy_list import (
    claims,
    compared,
    disagreements,
    dropped,
    first_entries,
    shared_tags,
    with_variants,
)
from .._model.request import Request
from .._model.steps import Problem
from .._system.files import FileChange
from .._system.host import Host

if TYPE_CHECKING:
    from .._boot.rollout_backup import RolloutPlan, RolloutStatus
    from .._boot.rollout_history import HistoryUpdate
    from .planned_numvfs import PlannedNumVfs


class Desired(NamedTuple):
    """What is asked for on this host, and what was there before.

    ``request`` has those entries alone that are for this board and of which nothing is wrong.
    ``skipped`` are sentences on entries for other boards, ``contents`` are our boot files as they
    are, ``records`` the files that a rollout writes, ``rollout`` the one that can be rolled back
    after this run, ``history`` the rollouts of this host if it changes them, and ``rolled_back``
    the names of those that it undoes.
    """

    request: Request
    claimed: Claimed
    last_applied: LastApplied
    contents: Mapping[str, str | None]
    skipped: Sequence[str]
    records: Sequence[FileChange]
    rollout: RolloutStatus | None = None
    history: HistoryUpdate | None = None
    rolled_back: Sequence[str] = ()


class ListKept(NamedTuple):
    """A host whose list stays, because the rollout did not change it or only ends.

    ``records`` and ``rollout`` are those of :class:`Desired`.
    """

    last_applied: LastApplied
    records: Sequence[FileChange]
    rollout: RolloutStatus | None


def find_desired(host: Host, request: Request, problems: Problems) -> Desired | ListKept:
    """Return what the request means here.

    ``problems`` collects what does not keep the rest from being inspected.
    """
    for position, sentence in request.problems:
        problems.add(sentence, position=position)
    request, skipped = _for_this_board(host, request, problems)
    contents = boot_files.contents(host.files) if request.is_whole_list else {}
    problems.add(*boot_files.not_ours(host.files, contents))
    earlier = LastApplied([], {})
    with problems.collecting():
        earlier = last_applied.parse_header(contents.get(last_applied.RULES))
    records: Sequence[FileChange] = ()
    rollout: RolloutStatus | None = None
    history: HistoryUpdate | None = None
    rolled_back: Sequence[str] = ()
    if request.rollout is not None:
        rolled = _part_of_rollout(host, request, earlier)
        rollout = rolled.status
        if rolled.request is None:
            return ListKept(earlier, rolled.records, rollout)
        # What was kept can have come here on the disk of another board.
        request, skipped_of_kept = _for_this_board(host, rolled.request, problems)
        skipped += skipped_of_kept
        records, history, rolled_back = rolled.records, rolled.history, rolled.rolled_back
    request, claimed = _claim(host, request, earlier, problems)
    return Desired(
        request=request,
        claimed=claimed,
        last_applied=earlier,
        contents=contents,
        skipped=skipped,
        records=records,
        rollout=rollout,
        history=history,
        rolled_back=rolled_back,
    )


def _for_this_board(host: Host, request: Request, problems: Problems) -> tuple[Request, list[str]]:
    """Return the request without entries for other boards, and sentences on those."""
    others = for_other_boards(host.sysfs, [entry.selector for entry in request.entries])
    skipped = [others[entry.selector] for entry in request.entries if entry.selector in others]
    here = [
        (position, entry) for position, entry in request.by_position if entry.selector not in others
    ]
    request = request._replace(
        entries=[entry for _position, entry in here],
        positions=[position for position, _entry in here],
    )
    for index, sentence in shared_tags(request.entries).items():
        problems.add(sentence, position=request.positions[index])
    return request, skipped


def _part_of_rollout(host: Host, request: Request, earlier: LastApplied) -> RolloutPlan:
    # Here, because a run that is part of none has not to load it.
    from .._boot.rollout_backup import (  # noqa: PLC0415
        RolloutFiles,
        part,
    )

    files = RolloutFiles(host.files.read_own(PREVIOUS), host.files.read_own(UNFINISHED))
    return part(request, earlier, files, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


def _claim(
    host: Host, request: Request, earlier: LastApplied, problems: Problems
) -> tuple[Request, Claimed]:
    """Return the request without entries that are wrong, and what the others claim."""
    if request.runtime:
        if not has_devices(host.sysfs):
            raise PolicyError(
                "/sys has no devices here, as in a container or an image. To prepare only the "
                "next boot, set `runtime: false`"
            )
        return _claim_present(host, request, earlier, problems)
    if not (request.is_whole_list and request.persistent and has_devices(host.sysfs)):
        return request, Claimed()
    # Devices may be missing till the next boot, and its files are made of all entries.
    own = Problems()
    _request, claimed = _claim_present(host, _without_expectations(request), earlier, own)
    conflicts = [Problem(sentence, position=position) for position, sentence in own.by_position]
    return request, claimed._replace(conflicts=conflicts)


def _without_expectations(request: Request) -> Request:
    entries = [
        entry._replace(selector=entry.selector._replace(required=False, expect=None))
        for entry in request.entries
    ]
    return request._replace(entries=entries)


def _claim_present(
    host: Host, request: Request, earlier: LastApplied, problems: Problems
) -> tuple[Request, Claimed]:
    """As :func:`_claim`, of the devices that are there."""
    selectors = [entry.selector for entry in request.entries]
    before = [entry.selector._replace(required=False, expect=None) for entry in earlier.entries]
    fields = {field for selector in selectors + before for field in selector.fields}
    devices = snapshot(host.sysfs, fields)
    numvfs: PlannedNumVfs | None = None
    if any(entry.sriov_numvfs is not None for entry in (*request.entries, *earlier.entries)):
        # Here, because few lists have virtual functions.
        from .planned_numvfs import (  # noqa: PLC0415
            plan_numvfs,
        )

        numvfs = plan_numvfs(host.sysfs, request, earlier, devices, problems)
        devices = numvfs.devices(devices)
    resolved, unresolved = resolve_all(host.sysfs, selectors + before, devices)
    created = numvfs.created if numvfs else ()
    whole = {
        device: device if device in created else with_all_ids(host.sysfs, device)
        for matches in resolved
        for device in matches
    }
    matched = [[whole[device] for device in matches] for matches in resolved]
    matches, matches_before = matched[: len(selectors)], matched[len(selectors) :]
    request, claimed = _decide(request, matches, unresolved, problems)
    claimed = _with_variants(host, claimed)
    if numvfs:
        claimed = claimed._replace(numvfs=numvfs.changes, numvfs_before=numvfs.before)
    if not request.is_whole_list:
        not_new = [claim._replace(is_new=False) for claim in claimed.claims]
        return request, claimed._replace(claims=not_new)
    earlier_entries = first_entries(earlier.entries, matches_before)
    claims_before = with_variants(
        [Claim(device, entry.policy) for device, entry in earlier_entries.items()],
        earlier.machine.variants if earlier.machine else {},
    )
    # A device can be that of an entry that is wrong.
    released = [] if problems.are_of_entries else dropped(claimed.claims, claims_before)
    claims_now = compared(claimed.claims, claims_before) + released
    known = {claim.device for claim in claims_now}
    claims_now += [
        Claim(device, Policy(DEFAULT, release_of=Policy(DEFAULT)))
        for device in claimed.numvfs
        if device not in known and not problems.are_of_entries
    ]
    return request, claimed._replace(claims=claims_now, earlier=matches_before)


def _with_variants(host: Host, claimed: Claimed) -> Claimed:
    """Return what is claimed with the VFIO drivers that the kernel names for devices."""
    asking = [
        claim.device
        for claim in claimed.claims
        if claim.policy.kind == VFIO and claim.device.pci_id and not claim.policy.vfio_driver
    ]
    if not asking:
        return claimed
    # Here, because lists without a PCI function have not to load it.
    from .._discovery.vfio_variants import (  # noqa: PLC0415
        find_variants,
    )

    variants = find_variants(host.sysfs, host.kmod, asking)
    return claimed._replace(
        claims=with_variants(claimed.claims, variants), variants=MappingProxyType(variants)
    )


def _decide(
    request: Request,
    matched: Sequence[Sequence[Identity]],
    unresolved: Mapping[int, str],
    problems: Problems,
) -> tuple[Request, Claimed]:
    """Return what those entries claim that have no problem, and that no other contradicts."""
    by_position = list(request.by_position)
    for index, sentence in unresolved.items():
        problems.add(sentence, position=by_position[index][0])
    undecided: set[Identity] = set()
    for problem in disagreements(request.entries, matched):
        problems.add(problem.sentence, position=by_position[problem.position][0])
        undecided.update(problem.devices)
    good = [
        (position, entry, [device for device in devices if device not in undecided])
        for index, ((position, entry), devices) in enumerate(zip(by_position, matched))
        if index not in unresolved
    ]
    positions: dict[Identity, int] = {}
    for position, _entry, devices in good:
        for device in devices:
            positions.setdefault(device, position)
    entries = [entry for _position, entry, _devices in good]
    claimed = Claimed(
        claims(entries, [devices for _position, _entry, devices in good]),
        matched,
        positions=positions,
    )
    return request._replace(entries=entries, positions=[entry[0] for entry in good]), claimed
