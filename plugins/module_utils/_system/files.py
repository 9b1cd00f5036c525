# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The only gateway to files: whole files, read, compared and replaced at once."""

from __future__ import annotations

import contextlib
import grp
import os
from typing import TYPE_CHECKING, NamedTuple, Sequence

from .._errors import PolicyError
from .._model.node_access import NodeAccess
from .file_reads import FileReader, failure

if TYPE_CHECKING:
    from .file_writes import StagedFile


class FileChange(NamedTuple):
    """A file's whole content before and after; None if it is or shall be absent.

    ``damage`` is why a file has to be replaced although its content is right. Where a run is
    rolled back the content alone comes back, not an owner who is not root.
    """

    path: str
    before: str | None
    after: str | None
    damage: Sequence[str] = ()

    @property
    def is_needed(self) -> bool:
        return self.before != self.after or bool(self.damage)

    @property
    def size(self) -> int:
        """How many bytes it writes."""
        return len((self.after or "").encode("utf-8", "surrogateescape"))


class Files(FileReader):
    """Reads and replaces files below ``root``, which is empty for this machine itself."""

    def write_atomic(self, path: str, content: str | None) -> None:
        """Write ``content`` atomically, or remove the file if it is None.

        Its mode is 0644, and 0755 for a script.
        """
        self.stage(path, content).commit()

    def stage(self, path: str, content: str | None) -> StagedFile:
        """Prepare ``write_atomic`` as far as it can fail; raise PolicyError if it does."""
        # Here and below, because a run that only reads has not to load it.
        from .file_writes import (  # noqa: PLC0415
            StagedFile,
        )

        return StagedFile(self._root, path, content, self._owner)

    def clear(self, paths: Sequence[str]) -> None:
        """Remove what a run that was killed had staged for these files."""
        from .file_writes import (  # noqa: PLC0415
            remove_leftovers,
        )

        for directory in {os.path.dirname(self._located(path)) for path in paths}:
            # What cannot be cleared hurts nobody: no program reads it.
            with contextlib.suppress(OSError):
                remove_leftovers(directory)

    def obstacle(self, path: str, size: int = 0, verb: str = "write") -> str | None:
        """Return why a file of that size could not be put there, or the one there not be removed.

        Reads only. None if nothing is known that speaks against it.
        """
        from .file_writes import (  # noqa: PLC0415
            find_obstacle,
        )

        code, directory = find_obstacle(self._located(path), size)
        if code is None:
            return None
        error = OSError(code, os.strerror(code), directory[len(self._root) :] or "/")
        return str(failure(verb, path, error))

    def set_symlink(self, path: str, target: str | None) -> None:
        """Set the link to ``target``, or remove it and an empty directory if it is None.

        PolicyError where something else is in its place.
        """
        try:
            present = self.link(path)
            if present is not None and present == target:
                return
            if present is not None:
                # udev may be quicker.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._located(path))
            self._link(path, target)
        except OSError as error:
            raise failure("link", path, error) from None

    def _link(self, path: str, target: str | None) -> None:
        directory = os.path.dirname(self._located(path))
        if target is None:
            with contextlib.suppress(OSError):
                os.rmdir(directory)
            return
        os.makedirs(directory, mode=0o755, exist_ok=True)
        try:
            os.symlink(target, self._located(path))
        except FileExistsError:
            if self.link(path) != target:
                raise

    def set_node_access(self, path: str, access: NodeAccess) -> None:
        """Set group and mode of a device node, if it exists; None leaves either unchanged."""
        try:
            if access.group is not None:
                os.chown(self._located(path), -1, _group_id(access.group))
            if access.mode is not None:
                os.chmod(self._located(path), int(access.mode, 8))
        except FileNotFoundError:
            return
        except (KeyError, OSError) as error:
            raise PolicyError(
                "Cannot set group and mode of %s to %s: %s" % (path, access.label, error)
            ) from None


def is_group(name: str) -> bool:
    """Return whether this host has a group of that name."""
    try:
        _group_id(name)
    except KeyError:
        return False
    return True


def _group_id(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def mode_of(content: str) -> int:
    """Return the permissions of a file with that content: those of a program for a script."""
    return 0o755 if content.startswith("#!") else 0o644
