# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a run has applied another list to the same host before. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

# Where the result of host_policy has it; ansible-core keeps that for the rest of the run.
KEY = "application"
_KEYS = {"play", "host", "digest", "is_empty"}

# What a host has once; the last run decides it. The others are about a run.
_OPTIONS = (
    "reset_required",
    "unsafe_noiommu",
    "unsafe_interrupts",
    "vfio_group",
    "vfio_mode",
    "initramfs",
)
_FALSE = ("false", "no", "off", "0", "n", "f")


class Application(NamedTuple):
    """A list that was applied: in which play, to which host, and a digest of it and its options."""

    play: str
    host: str
    digest: str
    is_empty: bool


def application(args: Mapping[str, Any], play: str, host: str) -> Application | None:
    """Return what a task of host_policy with these options applies; None if it keeps no list."""
    is_kept = str(args.get("persistent", True)).lower() not in _FALSE
    devices = args.get("devices")
    if args.get("state", "present") != "present" or not is_kept or not isinstance(devices, list):
        return None
    # In another order, a list is another one in the boot files.
    content = {
        "devices": devices,
        **{name: args[name] for name in _OPTIONS if devices and args.get(name) is not None},
    }
    digest = hashlib.sha256(_text(content).encode(errors="backslashreplace")).hexdigest()
    return Application(play, host, digest, not devices)


def to_result(applied: Application | None) -> dict[str, Any]:
    """Return what the result of host_policy has of it, for :func:`earlier` of a later task."""
    if applied is None:
        return {}
    content = {
        "play": applied.play,
        "host": applied.host,
        "digest": applied.digest,
        "is_empty": applied.is_empty,
    }
    return {KEY: content}


def earlier(result: Any) -> Application | None:
    """Return what a registered result of host_policy has applied, if it has."""
    content = result.get(KEY) if isinstance(result, Mapping) else None
    if not isinstance(content, Mapping) or set(content) != _KEYS:
        return None
    return Application(
        play=content["play"],
        host=content["host"],
        digest=content["digest"],
        is_empty=content["is_empty"],
    )


def refusal(now: Application | None, before: Application | None) -> str | None:
    """Return why a list is not applied: its play has applied another one to the host."""
    if now is None or before is None or not _replaces(now, before) or now.play != before.play:
        return None
    return (
        "This play has applied another list or other options to %s already, which this list would "
        "replace at every run. Merge both into one list in `devices`, and apply it once" % now.host
    )


def warning(now: Application | None, before: Application | None) -> str | None:
    """Return a warning for a list that replaces the one of an earlier play.

    To release all devices in one play and apply a list in another is no mistake.
    """
    if now is None or before is None or not _replaces(now, before) or now.play == before.play:
        return None
    if now.is_empty or before.is_empty:
        return None
    return (
        "An earlier play of this run has applied another list or other options to %s, which this "
        "list replaces at every run. Merge both into one list in `devices`." % now.host
    )


def _replaces(now: Application, before: Application) -> bool:
    return now.host == before.host and now.digest != before.digest


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
