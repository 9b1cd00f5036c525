# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files with the results of a playbook: JSON, JUnit, hosts for --limit, and any other text."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from ansible_collections.armfleet.vfio.plugins.plugin_utils import _file_modes

SUFFIXES = (".json", ".xml")

_MODE = 0o644
_MODE_OF_DIRECTORIES = 0o755
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


class File(NamedTuple):
    """A file with this content; ``mode`` is as users write it."""

    path: str
    content: str
    mode: str = "0644"


def write(path: str, results: Results) -> None:
    """Write the results in the format of the suffix, JSON or JUnit; OSError if that fails."""
    render = _junit if path.endswith(".xml") else _json
    _replace(_followed(path), render(results, datetime.now(timezone.utc)), _MODE)


def write_lines(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write each row as a line of JSON; OSError if that fails."""
    text = "".join("%s\n" % json.dumps(row) for row in rows)
    _replace(_followed(path), text, _MODE)


def write_retry(path: str, failed: Sequence[str]) -> None:
    """Write the hosts that failed for ``--limit @FILE``; remove the file if none has.

    Ansible takes an empty file as no limit at all.
    """
    if failed:
        _replace(_followed(path), "".join("%s\n" % host for host in failed), _MODE)
    else:
        remove(path)


def write_texts(
    files: Sequence[File], directory: str | None = None, *, is_check: bool = False
) -> list[str]:
    """Write these files; return the paths of those that change. OSError if that fails.

    A relative path starts at ``directory``, which is created if it is missing. Others may be able
    to write there, so a symbolic link is replaced; only where the user names the file is it
    followed. If ``is_check``, nothing is written.
    """
    if directory is not None:
        directory = os.path.realpath(directory)
    changed = []
    for file in files:
        path = _followed(file.path) if directory is None else os.path.join(directory, file.path)
        if os.path.isdir(path) and not os.path.islink(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        text = file.content.encode(errors="backslashreplace")
        mode = _file_modes.to_bits(file.mode, _mode_of(path))
        if _is_same(path, text, mode):
            continue
        changed.append(path)
        if not is_check:
            if directory is not None:
                _make_directory(directory)
            _replace(path, file.content, mode)
    return changed


def remove(path: str) -> None:
    """Remove the file of an earlier run, if there is one; OSError if that fails."""
    path = os.path.realpath(path)
    if os.path.isfile(path):
        os.unlink(path)


def _followed(path: str) -> str:
    """Return the path that symbolic links lead to; OSError if they lead nowhere."""
    followed = os.path.realpath(path)
    if os.path.islink(followed):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return followed


def _make_directory(path: str) -> None:
    if not os.path.isdir(path):
        os.makedirs(path)
        os.chmod(path, _MODE_OF_DIRECTORIES)


def _mode_of(path: str) -> int:
    """Return the mode of the file, or the one that a new file gets."""
    with suppress(OSError):
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            return stat.S_IMODE(status.st_mode)
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def _is_same(path: str, content: bytes, mode: int) -> bool:
    """Return whether it is a file with this content and mode."""
    with suppress(OSError):
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == mode:
            with open(path, "rb") as stream:
                return stream.read() == content
    return False


def _replace(path: str, text: str, mode: int) -> None:
    """Replace the file at once: who reads it sees the old or the new content.

    Nobody reads the content as long as it does not have its mode. An error names the file.
    """
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(
            dir=os.path.dirname(path), prefix=".armfleet-vfio-"
        )
        with open(descriptor, "wb") as stream:
            stream.write(text.encode(errors="backslashreplace"))
            os.fchmod(descriptor, mode)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, path) from None
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
