# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files with the results of a playbook for programs: JSON, JUnit, and hosts for --limit."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

SUFFIXES = (".json", ".xml")

_MODE = 0o644
_LONGEST_MESSAGE = 2000
# What XML 1.0 has no place for, not even as a reference (https://www.w3.org/TR/xml/#charsets).
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Results(NamedTuple):
    """The results of a playbook.

    ``hosts`` are mappings with ``host``, ``message`` and, under the key ``outcome_key``, what came
    of the host. Hosts in ``failed`` made the playbook fail; hosts in ``skipped`` were not begun.
    """

    playbook: str
    outcome_key: str
    hosts: Sequence[Mapping[str, Any]]
    failed: Sequence[str]
    skipped: Sequence[str] = ()
    is_check: bool = False


def write(path: str, results: Results) -> None:
    """Write the results in the format of the suffix, JSON or JUnit; OSError if that fails."""
    render = _junit if path.endswith(".xml") else _json
    _replace(path, render(results, datetime.now(timezone.utc)))


def write_retry(path: str, failed: Sequence[str]) -> None:
    """Write the hosts that failed for ``--limit @FILE``; remove the file if none has.

    Ansible takes an empty file as no limit at all.
    """
    if failed:
        _replace(path, "".join("%s\n" % host for host in failed))
    else:
        remove(path)


def remove(path: str) -> None:
    """Remove the file of an earlier run, if there is one; OSError if that fails."""
    path = os.path.realpath(path)
    if os.path.isfile(path):
        os.unlink(path)


def _replace(path: str, text: str) -> None:
    """Replace the file at once: who reads it sees the old or the new content."""
    path = os.path.realpath(path)
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".armfleet-vfio-")
    try:
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
            os.fchmod(descriptor, _MODE)
            stream.write(text)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _json(results: Results, made_at: datetime) -> str:
    totals = Counter(str(row[results.outcome_key]) for row in results.hosts)
    content = {
        "playbook": results.playbook,
        "made_at": made_at.isoformat(timespec="seconds"),
        "check_mode": results.is_check,
        "totals": dict(sorted(totals.items())),
        "failed": list(results.failed),
        "hosts": list(map(dict, results.hosts)),
    }
    return json.dumps(content, indent=2) + "\n"


def _junit(results: Results, made_at: datetime) -> str:
    """Return the results as Jenkins and GitLab read them: a test case for each host."""
    failed, skipped = set(results.failed), set(results.skipped)
    counts = {
        "tests": str(len(results.hosts)),
        "failures": str(sum(row["host"] in failed for row in results.hosts)),
        "errors": "0",
        "skipped": str(sum(row["host"] in skipped for row in results.hosts)),
    }
    suites = ET.Element("testsuites")
    suite = ET.SubElement(
        suites,
        "testsuite",
        {
            "name": _clean(results.playbook),
            **counts,
            "time": "0",
            "timestamp": made_at.strftime("%Y-%m-%dT%H:%M:%S"),
        },
    )
    for row in results.hosts:
        named = {"name": _clean(row["host"]), "classname": _clean(results.playbook), "time": "0"}
        case = ET.SubElement(suite, "testcase", named)
        outcome, message = _clean(row[results.outcome_key]), _clean(row["message"])
        if row["host"] in failed:
            about = {"type": outcome, "message": message or outcome}
            ET.SubElement(case, "failure", about).text = message or outcome
        elif row["host"] in skipped:
            ET.SubElement(case, "skipped", {"message": message or outcome})
        else:
            output = ET.SubElement(case, "system-out")
            output.text = "%s: %s" % (outcome, message) if message else outcome
    ET.indent(suites)
    text = ET.tostring(suites, encoding="unicode")
    return '<?xml version="1.0" encoding="UTF-8"?>\n%s\n' % text


def _clean(text: Any) -> str:
    clean = _NOT_IN_XML.sub("", str(text))
    return clean if len(clean) <= _LONGEST_MESSAGE else clean[: _LONGEST_MESSAGE - 2] + " …"
