# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Things that are built once and kept in the user's cache directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import GuestError


def cache_folder() -> Path:
    """Return where everything is kept that git does not keep."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "armfleet-vfio"


def say(text: str) -> None:
    """Tell whoever watches the build; standard output is left to results."""
    # At once, for two builds may tell something at a time.
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def full_disk() -> str:
    """Return the sentence for a build that found no space left."""
    places = (cache_folder(), Path(tempfile.gettempdir()))
    fullest = min(places, key=lambda path: shutil.disk_usage(path).free)
    variable = "XDG_CACHE_HOME" if fullest == places[0] else "TMPDIR"
    return (
        "No space left: %s has %d MiB free. Make room there, or set %s to a directory with 4 GiB "
        "free; what was finished is kept"
        % (fullest, shutil.disk_usage(fullest).free >> 20, variable)
    )


@dataclass(frozen=True)
class Artefact:
    """A directory that make() fills; recipe is all that its content depends on."""

    name: str
    purpose: str
    recipe: Sequence[bytes | str | Path]
    make: Callable[[Path], None]

    @property
    def folder(self) -> Path:
        """Named by the recipe, so that a changed recipe never meets an old result."""
        digest = hashlib.sha256()
        for part in self.recipe:
            content = part.read_bytes() if isinstance(part, Path) else part
            raw = content.encode() if isinstance(content, str) else content
            digest.update(hashlib.sha256(raw).digest())
        return cache_folder() / ("%s-%s" % (self.name, digest.hexdigest()[:16]))

    def ensure(self) -> Path:
        """Return the finished directory, built now if it is not there."""
        folder = self.folder
        if folder.is_dir():
            return folder
        with self._building():
            if not folder.is_dir():
                self._build(folder)
        return folder

    @contextlib.contextmanager
    def _building(self) -> Iterator[None]:
        """One build of an artefact at a time; others may be built beside it."""
        cache = cache_folder()
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / (self.name + ".lock")).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("guest: waiting for another build of %s to end ..." % self.name)
                fcntl.flock(lock, fcntl.LOCK_EX)
            for leftover in cache.glob(self._unfinished + "*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield

    @property
    def _unfinished(self) -> str:
        return ".unfinished-%s-" % self.name

    def _build(self, folder: Path) -> None:
        say("guest: %s ..." % self.purpose)
        began = time.monotonic()
        unfinished = Path(tempfile.mkdtemp(prefix=self._unfinished, dir=folder.parent))
        try:
            self.make(unfinished)
            unfinished.chmod(0o755)
            unfinished.rename(folder)
        except (GuestError, OSError) as error:
            if os.strerror(errno.ENOSPC) in str(error):
                raise GuestError(full_disk()) from None
            raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        say("guest:   %s: done in %d s" % (self.name, round(time.monotonic() - began)))
