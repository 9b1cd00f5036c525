# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wanted of a device: policies, the list of them, and who claims what. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any, Callable, Mapping, NamedTuple, Sequence, TypeVar

from .._errors import PolicyError, Problems
from .buses import BUSES, bus_of_vfio_driver
from .device import Identity
from .policy import DEFAULT, DRIVER, NO_AUTOBIND, VFIO, Claim, Policy
from .selector import Selector
from .selector_entry import check_driver, check_tag, parse

KINDS = (VFIO, NO_AUTOBIND, DRIVER, DEFAULT)

T = TypeVar("T")

_OTHER_VFIO = (
    "vfio_driver %s is not a driver for %s: VFIO's driver for the %s bus is %s. Correct or omit "
    "`vfio_driver`"
)
_NO_VFIO = (
    "%s cannot have policy vfio: VFIO has no driver for the %s bus. Use policy no_autobind or "
    "driver"
)


class Entry(NamedTuple):
    """One line of a policy list; ``tag`` is what its user calls its one device.

    ``sriov_numvfs`` is how many virtual functions its devices are to have; None leaves that alone.
    """

    selector: Selector
    policy: Policy
    tag: str | None = None
    sriov_numvfs: int | None = None

    @property
    def label(self) -> str:
        return "%s: %s" % (self.selector.label, self.policy.label)


def parse_entries(entries: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """Return the entries of a host's list; PolicyError names every bad one at once."""
    return _parse_all(entries, _entry)


def shared_tags(entries: Sequence[Entry]) -> dict[int, str]:
    """Return what is wrong with entries that count on one board and share a tag, by position."""
    counts = Counter(entry.tag for entry in entries)
    tags = [entry.tag for entry in entries]
    return {
        tags.index(tag): ("Tag %r is used by %d entries. Give each entry a tag of its own")
        % (tag, count)
        for tag, count in counts.items()
        if tag is not None and count > 1
    }


def check_tags(entries: Sequence[Entry]) -> None:
    """PolicyError if entries that count on one board share a tag."""
    problems = shared_tags(entries)
    if problems:
        raise PolicyError(list(problems.values()))


def parse_selectors(entries: Sequence[Mapping[str, Any]]) -> list[Selector]:
    """Return the selectors of a list without policies; PolicyError names every bad one at once."""
    return _parse_all(entries, parse)


def good_entries(entries: Sequence[Mapping[str, Any]], problems: Problems) -> dict[int, Entry]:
    """Return valid entries of a list by position; ``problems`` gets the others."""
    return _good(entries, _entry, problems)


def good_selectors(entries: Sequence[Mapping[str, Any]], problems: Problems) -> dict[int, Selector]:
    """As :func:`good_entries`, of a list without policies."""
    return _good(entries, parse, problems)


def _good(
    entries: Sequence[Mapping[str, Any]],
    parse_one: Callable[[Mapping[str, Any]], T],
    problems: Problems,
) -> dict[int, T]:
    good: dict[int, T] = {}
    for position, entry in enumerate(entries):
        with problems.collecting(position):
            good[position] = parse_one(entry)
    return good


def _parse_all(
    entries: Sequence[Mapping[str, Any]], parse_one: Callable[[Mapping[str, Any]], T]
) -> list[T]:
    problems = Problems()
    good = _good(entries, parse_one, problems)
    problems.end()
    return list(good.values())


def _entry(entry: Mapping[str, Any]) -> Entry:
    problems = Problems()
    tag = entry.get("tag")
    with problems.collecting():
        selector = parse(entry)
    with problems.collecting():
        policy = _policy(entry)
        if tag is not None and policy.kind != VFIO:
            raise PolicyError(
                "Tag %r requires policy vfio, but the entry has policy %s. Omit `tag`"
                % (tag, policy.kind)
            )
    with problems.collecting():
        tag = None if tag is None else check_tag(tag)
    with problems.collecting():
        numvfs = _numvfs(entry)
    problems.end()
    problem = selector.bus and _unavailable_reason(selector.label, policy, selector.bus)
    if problem:
        raise PolicyError(problem)
    return Entry(selector, policy, tag, numvfs)


def _numvfs(entry: Mapping[str, Any]) -> int | None:
    number: int | None = entry.get("sriov_numvfs")
    if number is None:
        return None
    if number < 0:
        raise PolicyError("sriov_numvfs is %d. Give the number of virtual functions, or 0" % number)
    if entry["policy"] not in (DEFAULT, DRIVER):
        raise PolicyError(
            "sriov_numvfs requires policy default or driver, but the entry has policy %s: only the "
            "driver of a function creates its virtual functions. Omit `sriov_numvfs`, and select "
            "the virtual functions for VFIO" % entry["policy"]
        )
    return number


def _unavailable_reason(label: str, policy: Policy, bus: str) -> str | None:
    """Return why devices of ``bus`` cannot have the policy, as a sentence."""
    if policy.kind != VFIO:
        return None
    if BUSES[bus].vfio_driver is None:
        return _NO_VFIO % (label, bus)
    if policy.vfio_driver and not BUSES[bus].has_vfio_driver(policy.vfio_driver):
        return _OTHER_VFIO % (policy.vfio_driver, label, bus, BUSES[bus].vfio_driver)
    return None


def _policy(entry: Mapping[str, Any]) -> Policy:
    kind, driver, vfio_driver = entry["policy"], entry.get("driver"), entry.get("vfio_driver")
    if kind not in KINDS:
        raise PolicyError(
            "Policy %r is unknown. Set `policy` to one of %s" % (kind, ", ".join(KINDS))
        )
    if kind == DRIVER and driver is None:
        raise PolicyError("Policy driver requires the name of a driver. Set `driver`")
    if driver and bus_of_vfio_driver(driver):
        raise PolicyError("Driver %s is a VFIO driver. Set `policy: vfio` instead" % driver)
    if kind != DRIVER and driver is not None:
        raise PolicyError(
            "Driver %r requires policy driver, but the entry has policy %s. Omit `driver`"
            % (driver, kind)
        )
    if vfio_driver is None:
        return Policy(kind, None if driver is None else check_driver(driver))
    if kind != VFIO:
        raise PolicyError(
            "vfio_driver %r requires policy vfio, but the entry has policy %s. Omit `vfio_driver`"
            % (vfio_driver, kind)
        )
    if bus_of_vfio_driver(check_driver(vfio_driver)) is None:
        raise PolicyError(
            "vfio_driver %r is not the name of a VFIO driver. Give one such as vfio-pci or "
            "mlx5_vfio_pci, or omit `vfio_driver`" % vfio_driver
        )
    return Policy(kind, vfio_driver=vfio_driver)


class Disagreement(NamedTuple):
    """What is wrong with the entry at ``position``, and the devices that it leaves undecided."""

    position: int
    sentence: str
    devices: Sequence[Identity]


def claims(entries: Sequence[Entry], matches: Sequence[Sequence[Identity]]) -> list[Claim]:
    """Return one claim for each device, in the list's order.

    PolicyError where two entries disagree, or where a tag would be that of several devices.
    """
    problems = disagreements(entries, matches)
    if problems:
        raise PolicyError([problem.sentence for problem in problems])
    tags = {
        device: entry.tag
        for entry, devices in zip(entries, matches)
        for device in devices
        if entry.tag
    }
    numbers = {
        device: entry.sriov_numvfs
        for entry, devices in zip(entries, matches)
        for device in devices
        if entry.sriov_numvfs is not None
    }
    return [
        Claim(device, entry.policy, tag=tags.get(device), numvfs=numbers.get(device))
        for device, entry in first_entries(entries, matches).items()
    ]


def disagreements(
    entries: Sequence[Entry], matches: Sequence[Sequence[Identity]]
) -> list[Disagreement]:
    """Return entries that contradict earlier ones, or whose tag matches several devices."""
    first: dict[Identity, Entry] = {}
    tags: dict[Identity, str] = {}
    numbers: dict[Identity, int] = {}
    problems = []
    for position, (entry, devices) in enumerate(zip(entries, matches)):
        if entry.tag and len(devices) > 1:
            problems.append(Disagreement(position, _ambiguous(entry, devices), devices))
        for device in devices:
            sentence = _unavailable_reason(device.label, entry.policy, device.bus)
            if sentence:
                problems.append(Disagreement(position, sentence, [device]))
            earlier = first.setdefault(device, entry)
            if earlier.policy != entry.policy:
                sentence = (
                    "Two entries claim %s with different policies: '%s' and '%s'. Keep one"
                    % (device.label, earlier.label, entry.label)
                )
                problems.append(Disagreement(position, sentence, [device]))
            if entry.sriov_numvfs is not None:
                number = numbers.setdefault(device, entry.sriov_numvfs)
                if number != entry.sriov_numvfs:
                    sentence = "Two entries give %s different numbers of virtual functions: %d "
                    sentence += "and %d. Keep one"
                    sentence %= (device.label, number, entry.sriov_numvfs)
                    problems.append(Disagreement(position, sentence, [device]))
            if entry.tag and tags.setdefault(device, entry.tag) != entry.tag:
                sentence = "Two entries give %s different tags: %s and %s. Keep one" % (
                    device.label,
                    tags[device],
                    entry.tag,
                )
                problems.append(Disagreement(position, sentence, [device]))
    return problems


def _ambiguous(entry: Entry, devices: Sequence[Identity]) -> str:
    return (
        "Tag %s must identify one device, but %s matches %d: %s. Use a more specific selector or "
        "omit the tag"
        % (
            entry.tag,
            entry.selector.label,
            len(devices),
            ", ".join(device.label for device in devices),
        )
    )


def first_entries(
    entries: Sequence[Entry], matches: Sequence[Sequence[Identity]]
) -> dict[Identity, Entry]:
    """Return who claims which device by a list that was once applied.

    Devices may have come that two of its entries match, and its user may have forgotten it; so
    where they disagree by now, the first counts.
    """
    first: dict[Identity, Entry] = {}
    for entry, devices in zip(entries, matches):
        for device in devices:
            first.setdefault(device, entry)
    return first


def with_variants(claims: Sequence[Claim], variants: Mapping[str, str]) -> list[Claim]:
    """Return the claims with the VFIO drivers that the kernel has for some devices alone, by id."""
    return [
        claim._replace(policy=with_variant(claim.policy, claim.device, variants))
        for claim in claims
    ]


def with_variant(policy: Policy, device: Identity, variants: Mapping[str, str]) -> Policy:
    """Return the policy with the driver that ``variants`` has for the device."""
    if policy.kind != VFIO or policy.vfio_driver or not device.pci_id:
        return policy
    driver = variants.get(device.pci_id[-1])
    return policy._replace(vfio_driver=driver, is_variant=True) if driver else policy


def dropped(now: Sequence[Claim], before: Sequence[Claim]) -> list[Claim]:
    """Return claims that release the devices which the list no longer claims."""
    kept = {claim.device for claim in now}
    return [
        Claim(claim.device, Policy(DEFAULT, release_of=claim.policy))
        for claim in before
        if claim.device not in kept and claim.policy.kind != DEFAULT
    ]


def compared(now: Sequence[Claim], before: Sequence[Claim]) -> list[Claim]:
    """Return the claims of now, marked by whether the list before said the same of the device."""
    policies = {claim.device: claim.policy for claim in before}
    return [claim._replace(is_new=policies.get(claim.device) != claim.policy) for claim in now]
