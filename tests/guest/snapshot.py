# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guests as they are right after their boot: saved once, and restored in a second and a half."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

from .artefacts import Artefact
from .board import Board, qemu_version
from .build import Parts
from .errors import GuestError

# What QEMU calls the saved state inside the disk's file, and how the file is called.
NAME = "booted"
DISK = "disk.qcow2"
_SAVE_SECONDS = 120


def snapshot(board: Board, parts: Parts, make: Callable[[Path], None]) -> Artefact:
    """Return the artefact of a booted guest, DISK with the state NAME in it, that make() fills."""
    device_tree = parts.device_trees / (board.name + ".dtb")
    return Artefact(
        name="booted-%s-%s" % (board.name, parts.kernel),
        purpose="booting board %s with Linux %s once and saving it (about half a minute)"
        % (board.name, parts.kernel),
        recipe=[
            *(parts.disk.parent.name, parts.image.parent.name),
            parts.initramfs.parent.name if parts.initramfs else "",
            *([device_tree] if board.device_tree else []),
            qemu_version(),
            # The machine's command line, which a restored guest must share.
            *(*board.hardware.machine, *board.hardware.devices, *board.parameters),
            Path(__file__).with_name("machine.py"),
        ],
        make=make,
    )


class Monitor:
    """Gives orders to a QEMU over a connected socket, by its machine protocol (QMP)."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(_SAVE_SECONDS)
        self._stream = connected.makefile("rw")
        self._read()
        self._execute("qmp_capabilities")

    def save(self) -> None:
        """Save the machine into its disk, then end it."""
        # QMP's own snapshot-save wants the disks' internal names and a job to be waited for.
        complaint = self._execute("human-monitor-command", {"command-line": "savevm " + NAME})
        if complaint:
            raise GuestError("QEMU cannot save the guest: %s" % str(complaint).strip())
        self._execute("quit")

    def _execute(self, command: str, arguments: dict[str, str] | None = None) -> object:
        order = {"execute": command, **({"arguments": arguments} if arguments else {})}
        self._stream.write(json.dumps(order) + "\n")
        self._stream.flush()
        while True:
            answer = self._read()
            if "error" in answer:
                raise GuestError("QEMU refuses %s: %s" % (command, answer["error"]))
            # Events come between.
            if "return" in answer:
                return answer["return"]

    def _read(self) -> dict[str, object]:
        try:
            line = self._stream.readline()
        except TimeoutError:
            raise GuestError("QEMU does not answer within %d s" % _SAVE_SECONDS) from None
        if not line:
            raise GuestError("QEMU ended")
        answer: dict[str, object] = json.loads(line)
        return answer
