# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report on one host, from the result of device_info: state, sentence, devices. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _answers
from ansible_collections.armfleet.vfio.plugins.plugin_utils._report_columns import (
    DEVICE_COLUMNS,
    Device,
    HostState,
)

IN_SYNC = "in_sync"
UNMANAGED = "unmanaged"
REBOOT_REQUIRED = "reboot_required"
DRIFT = "drift"
FAILED = "failed"
UNREACHABLE = "unreachable"

# The most urgent first.
STATES = (FAILED, UNREACHABLE, DRIFT, REBOOT_REQUIRED, IN_SYNC, UNMANAGED)

_LONGEST_MESSAGE = 300


class _Cause(NamedTuple):
    """A known cause of a failure, recognised in its message, and the advice for it."""

    pattern: re.Pattern[str]
    advice: str


def _cause(pattern: str, advice: str) -> _Cause:
    return _Cause(re.compile(pattern, re.IGNORECASE), advice)


# In the order in which they are tried: the most specific first.
_CAUSES = (
    _cause(
        r"No space left on device",
        "Its disk is full: free space on it, and run this again.",
    ),
    _cause(
        r"Read-only file system",
        "One of its file systems is mounted read-only: find the cause (dmesg), and remount it.",
    ),
    _cause(
        r"(REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed)",
        "Its host key is not the known one: if the host was reinstalled, remove the old key "
        "(ssh-keygen -R); otherwise find out who answers at its address.",
    ),
    _cause(
        r"Permission denied \(",
        "Check ansible_user and its SSH key.",
    ),
    _cause(
        r"Could not resolve hostname|Name or service not known",
        "Check ansible_host in the inventory, and the name service.",
    ),
    _cause(
        r"Connection refused",
        "Check that its SSH server is running, and check ansible_port.",
    ),
    _cause(
        r"timed out|No route to host|Network is unreachable",
        "Check that the host is running and connected, and check ansible_host in the inventory.",
    ),
    _cause(
        r"Missing (sudo|become) password|password is required|Incorrect (sudo|become) password",
        "Give the become password (--ask-become-pass), or allow its user to use sudo without one.",
    ),
    _cause(
        r"python\S*: (\S+: )?(not found|No such file or directory)|interpreter.*not found",
        "Install Python 3.8 or later on it, or set ansible_python_interpreter.",
    ),
    _cause(
        r"MemoryError|Cannot allocate memory",
        "It is out of memory: find out what uses it.",
    ),
)

# Other output of OpenSSH than its errors, lines of a traceback, and that a module has failed.
_NOISE = re.compile(
    r"(Warning: |debug\d: |@|Shared connection to |Traceback |  |MODULE FAILURE|See stdout/stderr|"
    r"The module failed to execute correctly|Module result deserialization failed)"
)
# What Ansible and ssh put before a message.
_PREFIX = re.compile(
    r"(Task failed: |Module failed: |Failed to connect to the host via ssh: |ssh: |"
    r"Data could not be sent to remote host \"[^\"]*\"\. Make sure this host can be reached over )+"
)
_TEMPORARY_DIRECTORY = re.compile(
    r"Failed to create temporary directory.*stderr output: (?P<output>.*)"
)
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b.*")


def host_state(host: str, result: Mapping[str, Any] | None) -> HostState:
    """Return the state of a host from its registered result of device_info, None if it has none."""
    if result is None or not result:
        sentence = "It was not read: the run ended before it or skipped it. Run this again for it."
        return _without_devices(host, FAILED, sentence)
    failure = failure_of(result)
    if failure:
        return _without_devices(host, *failure)
    try:
        result = _READ.read(result, "")
    except _answers.MalformedAnswerError as error:
        return _without_devices(host, FAILED, malformed(error))
    devices = [_device(inspected) for inspected in result["devices"]]
    losing = [_device(inspected) for inspected in result["devices"] if _is_losing(inspected)]
    boot_files = [
        sentence for file in result.get("boot_files") or () for sentence in file["drift"] or ()
    ]
    lost_entries = [lost["message"] for lost in result.get("lost_entries", ())]
    notes = [kernel["note"] for kernel in result.get("kernels") or () if kernel["note"]]
    if result.get("rollouts", ()) is None:
        notes.append(history_problem(result.get("rollouts_problem")))
    state = DRIFT if losing or lost_entries else _state_of(result, devices, boot_files)
    if losing:
        sentence = _losses(losing)
    elif lost_entries:
        sentence = _sentence_of_lost_entries(lost_entries)
    else:
        sentence = _sentence_of(state, result, devices, boot_files)
    return HostState(
        host=host,
        state=state,
        message=" Note: ".join([sentence, *map(one_line, notes[:1])]),
        devices=devices,
        boot_files=boot_files,
        lost_entries=lost_entries,
        notes=notes,
    )


def failure_of(result: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the state and the message of a host without devices in its result, or None."""
    if result.get("unreachable"):
        return UNREACHABLE, explained("It cannot be reached: ", messages(result))
    if result.get("failed") or "devices" not in result:
        return FAILED, explained("Its devices cannot be read: ", messages(result))
    return None


def history_problem(reason: str | None) -> str:
    """Return that a host has no history, and the ``reason`` that device_info returned.

    Earlier versions of device_info return none.
    """
    return explained("Its history cannot be read: ", [one_line(reason or "device_info warns why")])


def malformed(error: _answers.MalformedAnswerError) -> str:
    """Return the message of a host with such a result."""
    return explained("Its devices cannot be read: the result is malformed: ", [str(error)])


_READ_DEVICE = _answers.Completed(
    _answers.Record(
        {key: shape for column in DEVICE_COLUMNS for key, shape in column.reads.keys.items()},
        {"lost_at_boot": _answers.ListOf(_answers.LOSS.part("accepted"))},
        omits_nulls=True,
    )
)
_READ = _answers.Record(
    {
        "devices": _answers.ListOf(_READ_DEVICE),
        "policy_list": _answers.DEVICE_INFO["policy_list"],
    },
    {
        "boot_files": _answers.ListOf(_answers.BOOT_FILE.part("drift")),
        "lost_entries": _answers.ListOf(_answers.LOST_ENTRY.part("message")),
        "kernels": _answers.ListOf(_answers.KERNEL.part("note")),
        "reboot_required": _answers.DEVICE_INFO["reboot_required"],
        "rollouts": _answers.Nullable(_answers.ListOf(_answers.Record({}))),
        "rollouts_problem": _answers.DEVICE_INFO["rollouts_problem"],
        "vfio_support": _answers.Nullable(_answers.VFIO_SUPPORT.part("missing")),
    },
)


def _is_losing(inspected: Mapping[str, Any]) -> bool:
    """Return whether the next boot loses a use of the device that the user did not accept."""
    return not all(loss["accepted"] for loss in inspected.get("lost_at_boot", ()))


def _losses(losing: Sequence[Device]) -> str:
    first = losing[0]
    problem = "%s: %s" % (
        one_line(first["device"]),
        one_line((first["drift"] or ["the next boot unbinds it"])[0]),
    )
    others = len(losing) - 1
    more = " The same applies to %s more of its devices." % ("one" if others == 1 else others)
    advice = "Do not reboot it until that is no longer in use or its list was changed."
    return "%s.%s %s" % (problem.rstrip("."), more if others else "", advice)


def _without_devices(host: str, state: str, sentence: str) -> HostState:
    return HostState(
        host=host,
        state=state,
        message=sentence,
        devices=[],
        boot_files=[],
        lost_entries=[],
        notes=[],
    )


def _device(inspected: Mapping[str, Any]) -> Device:
    return cast("Device", {column.key: column.value(inspected) for column in DEVICE_COLUMNS})


def _state_of(
    result: Mapping[str, Any], devices: Sequence[Device], boot_files: Sequence[str]
) -> str:
    # A reboot does not apply what the boot files lack.
    if boot_files:
        return DRIFT
    if result.get("reboot_required"):
        return REBOOT_REQUIRED
    if any(device["drift"] for device in devices):
        return DRIFT
    return IN_SYNC if result["policy_list"] else UNMANAGED


def _sentence_of(
    state: str,
    result: Mapping[str, Any],
    devices: Sequence[Device],
    boot_files: Sequence[str],
) -> str:
    drifting = [device for device in devices if device["drift"]]
    listed = sum(device["desired"] is not None for device in devices)
    if state == REBOOT_REQUIRED:
        return "Reboot it to finish: its list was applied for the next boot only, which %s." % (
            "changes %s" % _devices(len(drifting)) if drifting else "has not happened yet"
        )
    if state == UNMANAGED:
        return "No list is applied to it. %s" % _sentence_of_candidates(result, devices)
    if state == IN_SYNC:
        return "%s of its list %s in sync, now and after the next boot." % (
            _devices(listed).capitalize(),
            "is" if listed == 1 else "are",
        )
    if boot_files:
        return _sentence_of_boot_files(boot_files, len(drifting))
    first = drifting[0]
    problem = "%s%s" % (one_line(first["device"]), _difference(first))
    others = len(drifting) - 1
    more = " The same applies to %s more of its devices." % ("one" if others == 1 else others)
    if not result["policy_list"]:
        advice = "Apply a list that contains it, or revert the manual change."
    elif first["desired"] and first["next_boot"]["driver"] != first["desired"]["driver"]:
        advice = "Change the list, or remove what prevents the driver that it requires."
    else:
        advice = "Apply its list again, or change the list."
    return "%s.%s %s" % (problem.rstrip("."), more if others else "", advice)


def _difference(device: Device) -> str:
    """Return what follows the name of a device with drift; its row has the whole message."""
    desired, after = device["desired"], device["next_boot"]
    expected = (desired or device)["driver"]
    if device["driver"] != expected:
        return " is bound to %s instead of %s" % (_driver(device["driver"]), _driver(expected))
    if after["known"] and after["driver"] != expected:
        return " is bound to %s, but will be bound to %s after the next boot: %s" % (
            _driver(expected),
            _driver(after["driver"]),
            one_line(after["reason"]),
        )
    return ": " + one_line(device["drift"][0])


def _driver(driver: str | None) -> str:
    return one_line(driver) if driver else "no driver"


def _sentence_of_candidates(result: Mapping[str, Any], devices: Sequence[Device]) -> str:
    able = sum(device["candidate"] is True for device in devices)
    if able:
        return "%s of its %s can be bound to VFIO." % (
            "One" if able == 1 else able,
            _devices(len(devices)),
        )
    if not devices or any(device["candidate"] is None for device in devices):
        return "The next boot will not change its %s." % _devices(len(devices))
    none = "None of its %s can be bound to VFIO" % _devices(len(devices))
    support = result.get("vfio_support") or {"missing": []}
    if support["missing"]:
        return "%s. %s." % (none, one_line(support["missing"][0]).rstrip("."))
    reasons = Counter(device["why_not"][0]["message"] for device in devices if device["why_not"])
    for reason, number in reasons.most_common(1):
        return "%s: %s (%s)." % (none, one_line(reason), _devices(number))
    return none + "."


def _sentence_of_boot_files(sentences: Sequence[str], drifting: int) -> str:
    others = len(sentences) - 1
    more = ""
    if others:
        more = " Boot files have %s." % (
            "one more difference" if others == 1 else "%d more differences" % others
        )
    devices = " %s %s drift as well." % (
        _devices(drifting).capitalize(),
        "has" if drifting == 1 else "have",
    )
    return "%s.%s%s Apply its list again to restore its boot files." % (
        one_line(sentences[0]).rstrip("."),
        more,
        devices if drifting else "",
    )


def _sentence_of_lost_entries(sentences: Sequence[str]) -> str:
    others = len(sentences) - 1
    more = " The same applies to %s more of its entries." % ("one" if others == 1 else others)
    return "%s.%s" % (one_line(sentences[0]).rstrip("."), more if others else "")


def _devices(number: int) -> str:
    return "one device" if number == 1 else "%d devices" % number


def explained(lead: str, lines: Sequence[str]) -> str:
    """Return the most telling line of a message, with advice if its cause is known."""
    for cause in _CAUSES:
        for line in lines:
            if cause.pattern.search(line):
                return "%s%s. %s" % (lead, line.rstrip("."), cause.advice)
    line = lines[0] if lines else "no reason was reported"
    return "%s%s." % (lead, line.rstrip(".:"))


def messages(result: Mapping[str, Any]) -> list[str]:
    """Return the messages of a failed result, a cleaned line each, the most telling first."""
    message, errors, output = (
        str(result.get(key) or "").splitlines() for key in ("msg", "module_stderr", "module_stdout")
    )
    # The last line of a traceback has the error.
    crashes = [line for line in [*errors, *output] if _EXCEPTION.fullmatch(line)]
    lines = [_PREFIX.sub("", line) for line in [*crashes[-1:], *message, *errors, *output]]
    return [one_line(line) for line in lines if line.strip() and not _NOISE.match(line)]


def one_line(text: str) -> str:
    """Return the text on one line, without control characters, and not too long."""
    failure = _TEMPORARY_DIRECTORY.search(text)
    text = " ".join((failure.group("output") if failure else text).split())
    text = "".join(letter for letter in text if letter.isprintable())
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 2].rstrip() + " …"
