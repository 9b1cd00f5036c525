# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether boot files match the last-applied configuration. Reads only."""

from __future__ import annotations

from typing import Mapping, NamedTuple, Sequence

from .._errors import PolicyError
from .._system.files import Files, mode_of
from . import initramfs, last_applied

PATHS = (*last_applied.PATHS, *initramfs.PATHS)


class BootFile(NamedTuple):
    """A boot file, or a directory that one is in, and what is wrong with it.

    ``drift`` is None if that cannot be known, because the file cannot be read.
    """

    path: str
    is_present: bool
    drift: Sequence[str] | None


def render(plan: last_applied.BootPlan) -> dict[str, str | None]:
    """Return the content of each of PATHS; None if there shall be no file."""
    rendered: dict[str, str | None] = dict.fromkeys(last_applied.PATHS)
    if plan.entries or plan.vfio_drivers:
        # Here, because a host without a list needs no rules, and compiles what it loads.
        from . import udev_rules  # noqa: PLC0415

        rendered = udev_rules.render(plan)
    contents = initramfs.ImageContents(initramfs_files(rendered), plan.initramfs_modules)
    rendered.update(initramfs.render(plan.initramfs_tool, last_applied.MARK, contents))
    return rendered


def initramfs_files(rendered: Mapping[str, str | None]) -> list[str]:
    """Return those of the files that shall be there which an image has to contain."""
    return [path for path in (last_applied.RULES, last_applied.MODPROBE) if rendered[path]]


def is_lost(files: Files, path: str, content: str | None) -> bool:
    """Return whether a file lost its content, as in a crash of the machine.

    A link to an empty file is none: somebody has hidden the file by it.
    """
    status = files.status(path) if content == "" else None
    return status is not None and status.is_regular


def damage(files: Files, path: str, content: str | None) -> list[str]:
    """Return why the file that is there cannot stay, whatever its content; one sentence each.

    Other names of the same file (hard links) are none: they give nobody more than reading.
    """
    status = files.status(path)
    if status is None:
        return []
    if not status.is_regular:
        # A run replaces a link, and nothing else that is no file.
        advice = "" if status.is_link else ". Remove it"
        return ["%s is %s, but must be a regular file%s" % (path, status.kind, advice)]
    if content is None:
        return []
    wanted = status._replace(user=0, group=0, mode=mode_of(content))
    if status == wanted:
        return []
    return ["%s is %s, but must be %s" % (path, status.label, wanted.label)]


def unsafe_directories(files: Files, paths: Sequence[str]) -> dict[str, str]:
    """Return a message for each directory in which a user other than root can replace a path."""
    unsafe: dict[str, str] = {}
    for path in paths:
        for directory, status in files.directories_above(path).items():
            if status.is_replaceable_by_others:
                unsafe[directory] = (
                    "%s is %s, so users other than root can replace boot files below it. Run "
                    "'chown root:root %s' and 'chmod go-w %s'"
                    % (directory, status.label, directory, directory)
                )
    return unsafe


def compare(
    files: Files, previous: last_applied.LastApplied, problem: str | None = None
) -> list[BootFile]:
    """Return the files that the last-applied configuration requires, and other own files.

    ``problem`` is why that configuration is unknown although the rules file exists.
    """
    expected = render(last_applied.boot_plan(previous, previous.machine or last_applied.Machine()))
    present = [path for path in PATHS if files.status(path)]
    concerned = [path for path in PATHS if expected[path] is not None or path in present]
    if present and last_applied.RULES not in concerned:
        concerned.insert(0, last_applied.RULES)
    boot_files = [
        BootFile(path, path in present, _drift(files, path, expected[path], previous, problem))
        for path in concerned
    ]
    return boot_files + [
        BootFile(directory, is_present=True, drift=[sentence])
        for directory, sentence in unsafe_directories(files, concerned).items()
    ]


def _drift(
    files: Files,
    path: str,
    expected: str | None,
    previous: last_applied.LastApplied,
    problem: str | None,
) -> list[str] | None:
    status = files.status(path)
    if status is None:
        reason = (
            "but the last-applied configuration requires it"
            if expected is not None
            else "but other boot files exist, so the last-applied configuration is unknown"
        )
        return ["%s does not exist, %s" % (path, reason)]
    sentences = damage(files, path, expected)
    try:
        content = files.read(path)
    except PolicyError:
        return sentences or None
    if problem and path == last_applied.RULES and not last_applied.not_ours(path, content):
        return [*sentences, problem]
    return sentences + _differences(path, content, expected, is_list_known=bool(previous.entries))


def _differences(
    path: str, content: str | None, expected: str | None, *, is_list_known: bool
) -> list[str]:
    if content is None or content == expected:
        # A link that leads nowhere was named for being a link.
        return []
    if content == "":
        return ["%s is empty" % path]
    if last_applied.not_ours(path, content):
        return ["%s was not written by this collection" % path]
    if expected is None and path == last_applied.RULES:
        return ["%s has no policy list in its header: it was edited or truncated" % path]
    if expected is None:
        whose = "the last-applied configuration does not require it"
        return [
            "%s is stale: %s"
            % (
                path,
                whose
                if is_list_known
                else ("the configuration that it was written for is unknown"),
            )
        ]
    return [
        "%s differs from the last-applied configuration from line %d on: it was edited, or "
        "another version of this collection wrote it" % (path, _first_difference(content, expected))
    ]


def _first_difference(content: str, expected: str) -> int:
    lines, wanted = content.split("\n"), expected.split("\n")
    pairs = enumerate(zip(lines, wanted), 1)
    shorter = min(len(lines), len(wanted))
    return next((number for number, (line, other) in pairs if line != other), shorter + 1)
