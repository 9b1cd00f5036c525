# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway to the initramfs tools: rebuilds the images and checks their contents."""

from __future__ import annotations

import os
import subprocess
from typing import Any, Callable, Iterator, NamedTuple, Sequence

from .. import _text
from .._errors import PolicyError
from .._system.files import Files
from .._system.kmod import module_of
from . import initramfs, last_applied
from .initramfs import InitramfsTool

# Read by udev and by modprobe in the initramfs; where their directories are is the tool's matter.
_INITRAMFS_FILES = (last_applied.RULES, last_applied.MODPROBE)
_LAST_LINES = 5
_CHECK = "Check the tool's configuration and whether /boot is writable, and run again"
_BY_KERNEL_INSTALL = (
    "If kernel-install makes it, run 'kernel-install add %s /lib/modules/%s/vmlinuz', or remove it "
    "if no boot entry uses it"
)
_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


class Ran(NamedTuple):
    """The result of a program."""

    code: int
    output: str
    errors: str = ""

    @property
    def last_lines(self) -> str:
        lines = [_text.stripped(line) for line in _text.lines(self.output + "\n" + self.errors)]
        return "; ".join([line for line in lines if line][-_LAST_LINES:])


class Image(NamedTuple):
    """An initramfs of this host, and what is wrong with it.

    ``not_installed`` are modules that its kernel does not have at all; ``unreadable`` is why its
    contents are not known. If it is not ``is_listed``, no program lists them.
    """

    path: str
    kernel: str
    is_rebuilt: bool = False
    missing: Sequence[str] = ()
    unexpected: Sequence[str] = ()
    not_installed: Sequence[str] = ()
    unreadable: str | None = None
    is_listed: bool = True


class Rebuilt(NamedTuple):
    """The result of a rebuild; ``notes`` are about kernels that lack a module themselves."""

    tool: str
    command: Sequence[str]
    images: Sequence[Image]
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()


Run = Callable[[Sequence[str]], Ran]


def run(arguments: Sequence[str]) -> Ran:
    """Run a program to its end, however long that takes."""
    try:
        done = subprocess.run(
            list(arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, **_ENVIRONMENT},
            check=False,
        )
    except OSError as error:
        return Ran(127, "", "%s: %s" % (arguments[0], error.strerror))
    output, errors = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    return Ran(done.returncode, output, errors)


def result(rebuilt: Rebuilt) -> dict[str, Any]:
    """Return the result of the module."""
    return {
        "changed": any(image.is_rebuilt for image in rebuilt.images),
        "tool": rebuilt.tool,
        "command": list(rebuilt.command),
        "images": [
            {
                "path": image.path,
                "kernel": image.kernel,
                "rebuilt": image.is_rebuilt,
                "missing": list(image.missing),
                "unexpected": list(image.unexpected),
            }
            for image in rebuilt.images
        ],
    }


def rebuild(files: Files, run: Run, requires_image: bool, check_mode: bool) -> Rebuilt:
    """Rebuild the images of this host's kernels, and check their contents.

    PolicyError if that cannot be started, or if the command fails.
    """
    tool = initramfs.detect(files)
    if tool is None:
        raise PolicyError(initramfs.no_tool(files))
    if os.geteuid() != 0:
        raise PolicyError("Root privileges are required on the target. Set `become: true`")
    command = tool.command
    before = {path: files.version(path) for path, _kernel in _paths(files, tool)}
    if not before and not tool.creates_images:
        if requires_image:
            raise PolicyError(tool.image_required)
        return Rebuilt(tool.name, command, [], notes=[tool.nothing_rebuilt])
    if check_mode:
        predicted = [Image(path, kernel, is_rebuilt=True) for path, kernel in _paths(files, tool)]
        return Rebuilt(tool.name, command, predicted)
    # A file that is newer than an image has the next run build it again.
    files.write_atomic(initramfs.OUTDATED, _outdated(files, tool))
    ran = run(command)
    if ran.code:
        # It may have written some of the images, and half of another.
        files.write_atomic(initramfs.OUTDATED, _outdated(files, tool))
        raise PolicyError(
            "'%s' failed with exit code %d: %s. Fix the cause, and run again"
            % (" ".join(command), ran.code, ran.last_lines or "it printed nothing")
        )
    images, problems, notes = [], [], []
    for path, kernel in _paths(files, tool):
        image = _checked(files, run, tool, Image(path, kernel))
        image = image._replace(is_rebuilt=files.version(path) != before.get(path))
        images.append(image)
        problems += _problems(image, ran, command)
        notes += _notes(image, tool)
    if not images:
        (problems if requires_image else notes).append(initramfs.NOT_FOUND % tool.name)
    files.write_atomic(initramfs.OUTDATED, _outdated(files, tool) if problems else None)
    return Rebuilt(tool.name, command, images, problems, notes)


def _outdated(files: Files, tool: InitramfsTool) -> str:
    return initramfs.outdated(map(files.read, (*_INITRAMFS_FILES, tool.path)))


def _paths(files: Files, tool: InitramfsTool) -> list[tuple[str, str]]:
    """Return the images that the tool rebuilds, each with its kernel."""
    return [
        (path, kernel)
        for kernel in tool.kernels
        for path in initramfs.image_paths(files, kernel)
        if files.version(path)
    ]


def _checked(files: Files, run: Run, tool: InitramfsTool, image: Image) -> Image:
    """Return the image with what is wrong in it."""
    if image.path.endswith(initramfs.UNIFIED) and not tool.lists_unified_images:
        return image._replace(is_listed=False)
    command = [*tool.lister, image.path]
    listed = run(command)
    if listed.code:
        return image._replace(
            unreadable="'%s' failed with exit code %d: %s"
            % (" ".join(command), listed.code, listed.last_lines or "it printed nothing")
        )
    names = list(_names(listed.output))
    ends = {_end(name) for name in names}
    required = tool.required_contents(_INITRAMFS_FILES)
    installed = "/lib/modules/%s/" % image.kernel
    modules = {module_of(name) for name in names if ".ko" in os.path.basename(name)}
    modules.update(initramfs.module_files(files, installed + "modules.builtin"))
    available = set(initramfs.module_files(files, installed + "modules.dep"))
    absent = [module for module in required.modules if module not in modules]
    return image._replace(
        missing=[path for path in required.files if _end(path) not in ends]
        + ["module " + module for module in absent if module in available],
        unexpected=[
            path for path in _INITRAMFS_FILES if files.read(path) is None and _end(path) in ends
        ],
        not_installed=[module for module in absent if module not in available],
    )


def _names(output: str) -> Iterator[str]:
    """Yield the paths of a listing, be it bare or as of ls -l."""
    for line in _text.lines(output):
        words = _text.words(line.partition(" -> ")[0])
        if words:
            yield "/" + words[-1].lstrip("./")


def _end(path: str) -> str:
    """Return the names of the file and its directory, whose own place differs between tools."""
    return "/".join(path.rsplit("/", 2)[-2:])


def _notes(image: Image, tool: InitramfsTool) -> list[str]:
    notes = []
    if not image.is_listed:
        notes.append(
            "%s was not read, because %s does not list unified kernel images"
            % (image.path, tool.lister[0])
        )
    if image.not_installed:
        notes.append(
            "Kernel %s is installed without the module %s, so %s does not contain it"
            % (image.kernel, ", ".join(image.not_installed), image.path)
        )
    return notes


def _problems(image: Image, ran: Ran, command: Sequence[str]) -> list[str]:
    problems = []
    if image.unreadable:
        problems.append(
            "%s cannot be checked: %s. Fix the cause, and run again"
            % (image.path, image.unreadable)
        )
    if not image.is_rebuilt:
        problems.append(
            "%s was not rebuilt, although '%s' ended without an error%s. %s"
            % (
                image.path,
                " ".join(command),
                ": " + ran.last_lines if ran.last_lines else "",
                _BY_KERNEL_INSTALL % (image.kernel, image.kernel)
                if initramfs.is_of_kernel_install(image.path)
                else _CHECK,
            )
        )
    if image.missing:
        problems.append(
            "%s lacks %s after '%s'. Check the configuration of the tool that built it and run "
            "again, or set `initramfs: never`"
            % (image.path, " and ".join(image.missing), " ".join(command))
        )
    if image.unexpected:
        problems.append(
            "%s still contains %s after '%s', although this host no longer has it. Check the "
            "configuration of the tool that built it, and run again"
            % (image.path, " and ".join(image.unexpected), " ".join(command))
        )
    return problems
