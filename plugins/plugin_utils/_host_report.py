# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What came of reading a host with device_info: its state, a sentence, its devices. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers

AS_LISTED = "as_listed"
UNMANAGED = "unmanaged"
REBOOT = "reboot"
DRIFT = "drift"
FAILED = "failed"
UNREACHABLE = "unreachable"

# What needs somebody comes first.
STATES = (FAILED, UNREACHABLE, DRIFT, REBOOT, AS_LISTED, UNMANAGED)

_LONGEST_MESSAGE = 300


class Hazard(TypedDict):
    """What would be hurt if the device lost its driver."""

    kind: str
    sentence: str


class Binding(TypedDict):
    """A driver and the override that leads to it."""

    driver: str | None
    driver_override: str | None


class NextBoot(Binding):
    """What will be after the next boot, whether that is known, and why."""

    known: bool
    reason: str


class Device(TypedDict):
    """A device of a host; ``device`` names it best. ``hazards`` are None where not known."""

    device: str
    name: str
    bus: str
    driver: str | None
    driver_override: str | None
    desired: Binding | None
    next_boot: NextBoot
    drift: list[str]
    hazards: list[Hazard] | None


class HostState(TypedDict):
    """A host as a report shows it.

    ``boot_files`` is what is wrong with them; ``notes`` is what does not count as drift.
    """

    host: str
    state: str
    sentence: str
    devices: list[Device]
    boot_files: list[str]
    notes: list[str]


class _Cause(NamedTuple):
    """What a message means, where it is known, and what to do."""

    pattern: re.Pattern[str]
    advice: str


def _cause(pattern: str, advice: str) -> _Cause:
    return _Cause(re.compile(pattern, re.IGNORECASE), advice)


# In the order in which they are looked for: the narrower ones first.
_CAUSES = (
    _cause(
        r"No space left on device",
        "Its disk is full: make room on it, then run this again.",
    ),
    _cause(
        r"Read-only file system",
        "A file system of it is mounted read-only: see why (dmesg), and mount it for writing.",
    ),
    _cause(
        r"(REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed)",
        "Its host key is not the one that is known here: if the host was installed anew, remove "
        "the old key (ssh-keygen -R); otherwise find out who answers at its address.",
    ),
    _cause(
        r"Permission denied \(",
        "Check ansible_user and the key that it logs in with.",
    ),
    _cause(
        r"Could not resolve hostname|Name or service not known",
        "Check ansible_host in the inventory, and the name service.",
    ),
    _cause(
        r"Connection refused",
        "Check that its SSH server runs, and ansible_port.",
    ),
    _cause(
        r"timed out|No route to host|Network is unreachable",
        "Check that it runs and has a network, and ansible_host in the inventory.",
    ),
    _cause(
        r"Missing (sudo|become) password|password is required|Incorrect (sudo|become) password",
        "Give the password for become (--ask-become-pass), or let its user use sudo without one.",
    ),
    _cause(
        r"python\S*: (\S+: )?(not found|No such file or directory)|interpreter.*not found",
        "Install Python 3.8 or later on it, or say where it is (ansible_python_interpreter).",
    ),
    _cause(
        r"MemoryError|Cannot allocate memory",
        "It has too little free memory: see what takes it.",
    ),
)

# What OpenSSH says beside its errors, lines of a traceback, and that a module has failed.
_NOISE = re.compile(
    r"(Warning: |debug\d: |@|Shared connection to |Traceback |  |MODULE FAILURE|See stdout/stderr|"
    r"The module failed to execute correctly|Module result deserialization failed)"
)
# What Ansible and ssh put before what was said.
_PREFIX = re.compile(
    r"(Task failed: |Module failed: |Failed to connect to the host via ssh: |ssh: |"
    r"Data could not be sent to remote host \"[^\"]*\"\. Make sure this host can be reached over )+"
)
_FOLDER = re.compile(r"Failed to create temporary directory.*stderr output: (?P<said>.*)")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b.*")


def host_state(host: str, result: Mapping[str, Any] | None) -> HostState:
    """The state of a host by the registered result of device_info; None where it has none."""
    if result is None or not result:
        sentence = "It was not read: the run ended before, or left it out. Run this again for it."
        return _without_devices(host, FAILED, sentence)
    if result.get("unreachable"):
        sentence = explained("It cannot be reached: ", messages(result))
        return _without_devices(host, UNREACHABLE, sentence)
    if result.get("failed") or "devices" not in result:
        sentence = explained("Its devices cannot be read: ", messages(result))
        return _without_devices(host, FAILED, sentence)
    try:
        result = _READ.read(result, "")
    except _answers.MalformedAnswerError as error:
        sentence = explained("Its devices cannot be read: the result is malformed: ", [str(error)])
        return _without_devices(host, FAILED, sentence)
    devices = [_device(found) for found in result["devices"]]
    losing = [
        device
        for device, found in zip(devices, result["devices"], strict=True)
        if _is_losing(found)
    ]
    boot_files = [
        sentence for one in result.get("boot_files") or () for sentence in one["drift"] or ()
    ]
    notes = [one["note"] for one in result.get("kernels") or () if one["note"]]
    state = DRIFT if losing else _state_of(result, devices, boot_files)
    sentence = _losses(losing) if losing else _sentence_of(state, result, devices, boot_files)
    return HostState(
        host=host,
        state=state,
        sentence=" Note: ".join([sentence, *map(one_line, notes[:1])]),
        devices=devices,
        boot_files=boot_files,
        notes=notes,
    )


_READ_DEVICE = _answers.Record(
    {
        **_answers.INSPECTED_DEVICE.part(
            "name",
            "bus",
            "dt_path",
            "acpi_path",
            "driver",
            "driver_override",
            "desired",
            "next_boot",
            "drift",
        ).keys,
        "carries": _answers.Nullable(_answers.ListOf(_answers.HAZARD.part("kind", "sentence"))),
    },
    {"lost_at_boot": _answers.ListOf(_answers.LOSS.part("accepted"))},
)
_READ = _answers.Record(
    {
        "devices": _answers.ListOf(_READ_DEVICE),
        "policy_list": _answers.DEVICE_INFO["policy_list"],
    },
    {
        "boot_files": _answers.ListOf(_answers.BOOT_FILE.part("drift")),
        "kernels": _answers.ListOf(_answers.KERNEL.part("note")),
        "reboot_required": _answers.DEVICE_INFO["reboot_required"],
    },
)


def _is_losing(found: Mapping[str, Any]) -> bool:
    """Whether the next boot takes something of a device that nobody accepted to lose."""
    return not all(lost["accepted"] for lost in found.get("lost_at_boot", ()))


def _losses(losing: Sequence[Device]) -> str:
    first = losing[0]
    said = "%s: %s" % (
        one_line(first["device"]),
        one_line((first["drift"] or ["the next boot takes it"])[0]),
    )
    others = len(losing) - 1
    more = " So %s more of its devices." % ("is one" if others == 1 else "are %d" % others)
    advice = "Do not boot it before that is out of use or its list was changed."
    return "%s.%s %s" % (said.rstrip("."), more if others else "", advice)


def _without_devices(host: str, state: str, sentence: str) -> HostState:
    return HostState(host=host, state=state, sentence=sentence, devices=[], boot_files=[], notes=[])


def _device(found: Mapping[str, Any]) -> Device:
    desired = found["desired"]
    after = found["next_boot"]
    return Device(
        device=found["dt_path"] or found["acpi_path"] or found["name"],
        name=found["name"],
        bus=found["bus"],
        driver=found["driver"],
        driver_override=found["driver_override"],
        desired=desired
        and Binding(driver=desired["driver"], driver_override=desired["driver_override"]),
        next_boot=NextBoot(
            driver=after["driver"],
            driver_override=after["driver_override"],
            known=after["known"],
            reason=after["reason"],
        ),
        drift=list(found["drift"]),
        hazards=None
        if found["carries"] is None
        else [Hazard(kind=one["kind"], sentence=one["sentence"]) for one in found["carries"]],
    )


def _state_of(
    result: Mapping[str, Any], devices: Sequence[Device], boot_files: Sequence[str]
) -> str:
    # A boot would not finish what these files do not say.
    if boot_files:
        return DRIFT
    if result.get("reboot_required"):
        return REBOOT
    if any(device["drift"] for device in devices):
        return DRIFT
    return AS_LISTED if result["policy_list"] else UNMANAGED


def _sentence_of(
    state: str,
    result: Mapping[str, Any],
    devices: Sequence[Device],
    boot_files: Sequence[str],
) -> str:
    drifting = [device for device in devices if device["drift"]]
    listed = sum(device["desired"] is not None for device in devices)
    if state == REBOOT:
        return "Boot it to finish: its list was applied for the next boot only, which %s." % (
            "changes %s" % _devices(len(drifting)) if drifting else "has not happened yet"
        )
    if state == UNMANAGED:
        return "No list is applied to it, and no boot will change its %s." % _devices(len(devices))
    if state == AS_LISTED:
        return "%s of its list %s as the list wants, now and after the next boot." % (
            _devices(listed).capitalize(),
            "is" if listed == 1 else "are",
        )
    if boot_files:
        return _sentence_of_boot_files(boot_files, len(drifting))
    first = drifting[0]
    said = "%s: %s" % (one_line(first["device"]), one_line(first["drift"][0]))
    others = len(drifting) - 1
    more = " So %s more of its devices." % ("is one" if others == 1 else "are %d" % others)
    if not result["policy_list"]:
        advice = "Apply a list that has it, or undo what was done by hand."
    elif first["desired"] and first["next_boot"]["driver"] != first["desired"]["driver"]:
        advice = "Change the list, or what keeps the device from the driver that it asks for."
    else:
        advice = "Apply its list again, or change the list."
    return "%s.%s %s" % (said.rstrip("."), more if others else "", advice)


def _sentence_of_boot_files(sentences: Sequence[str], drifting: int) -> str:
    others = len(sentences) - 1
    more = " Boot files have %d more such differences." % others if others else ""
    devices = " So %s." % (
        "differs one device" if drifting == 1 else "differ %d devices" % drifting
    )
    return "%s.%s%s Apply its list again: that restores its own boot files." % (
        one_line(sentences[0]).rstrip("."),
        more,
        devices if drifting else "",
    )


def _devices(number: int) -> str:
    return "one device" if number == 1 else "%d devices" % number


def explained(lead: str, lines: Sequence[str]) -> str:
    """The line of a message that tells most, and what to do about it where that is known."""
    for cause in _CAUSES:
        for line in lines:
            if cause.pattern.search(line):
                return "%s%s. %s" % (lead, line.rstrip("."), cause.advice)
    line = lines[0] if lines else "nothing was said of why"
    return "%s%s." % (lead, line.rstrip(".:"))


def messages(result: Mapping[str, Any]) -> list[str]:
    """What was said of a failure, a cleaned line each, that which tells most first."""
    said, errors, output = (
        str(result.get(key) or "").splitlines() for key in ("msg", "module_stderr", "module_stdout")
    )
    # Of a traceback it is the last line that tells.
    crashes = [line for line in [*errors, *output] if _EXCEPTION.fullmatch(line)]
    told = [_PREFIX.sub("", line) for line in [*crashes[-1:], *said, *errors, *output]]
    return [one_line(line) for line in told if line.strip() and not _NOISE.match(line)]


def one_line(text: str) -> str:
    """Return the text on one line, without control characters, and not too long."""
    found = _FOLDER.search(text)
    text = " ".join((found.group("said") if found else text).split())
    text = "".join(letter for letter in text if letter.isprintable())
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 2].rstrip() + " …"
