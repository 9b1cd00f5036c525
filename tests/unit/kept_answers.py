# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules of which a host keeps answers, and what they read of it that is not recorded."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args
from board import Board

from ansible_collections.armfleet.vfio.plugins.module_utils._apply import last_answer
from tests.harness.modules import MODULES, run_on

# Reads that are recorded, and reads of every run, whether it returns the last answer or not. What
# modprobe's gateway reads of its own is in its sources, which are recorded.
_KNOWN = (
    *("_system/recorded_reads.py", "_system/kmod.py"),
    *("_apply/host_lock.py", "_apply/last_answer.py", "_ansible_module.py"),
)
_READERS = ("open", "stat", "lstat", "readlink", "listdir", "scandir", "access", "statvfs")


class Module:
    """A module on a board, as its action plugin runs it; each call behaves as in a new process."""

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        board: Board,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self._name, self._options = name, options
        self._board, self._monkeypatch, self._capsys = board, monkeypatch, capsys
        self.runs = 0

    def __call__(
        self, *, check_mode: bool = False, code: str | None = "1", **options: Any
    ) -> dict[str, Any]:
        run_on(self._board, self._monkeypatch)
        arguments = {**self._options, **options}
        modes = {"_ansible_check_mode": check_mode}
        if code is not None:
            content = json.dumps([code, arguments], sort_keys=True)
            arguments["request_digest"] = hashlib.sha256(content.encode()).hexdigest()
            asked = {"request_digest": arguments["request_digest"], "timeout": 1}
            kept = self._run("last_answer", {**asked, **modes})
            if kept.pop("is_kept"):
                return kept
        self.runs += 1
        return self._run(self._name, {**arguments, **modes})

    def _run(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        # ansible-core collects the warnings of a process.
        self._monkeypatch.setattr(warnings, "_global_warnings", type(warnings._global_warnings)())
        with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
            MODULES[name].main()
        answer: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        assert bool(ended.value.code) == answer.get("failed", False)
        # It has the options.
        answer.pop("invocation", None)
        return answer

    def is_run(self, **options: Any) -> bool:
        """Return whether a call executes a whole run."""
        before = self.runs
        self(**options)
        return self.runs > before

    @property
    def all_kept(self) -> list[Path]:
        """The files of all answers, the oldest first."""
        directory = self._board.root / "run"
        return sorted(directory.glob(f"{last_answer.PREFIX}*"), key=os.path.getmtime)

    @property
    def kept(self) -> Path:
        """The file of the answer."""
        (path,) = self.all_kept
        return path


@contextlib.contextmanager
def unrecorded_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Yield a list that gets each read of the collection that no record has."""
    strangers: list[str] = []

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            files, frame = [], sys._getframe(1)
            while frame:
                files.append(frame.f_code.co_filename)
                frame = frame.f_back
            ours = [file for file in files if "/vfio/plugins/module_utils/" in file]
            # The simulated kernel reads its own files.
            called_by = files[: files.index(ours[0])] if ours else []
            is_ours = ours and not any("/vfio/tests/" in file for file in called_by)
            if is_ours and not any(file.endswith(_KNOWN) for file in ours):
                strangers.append(f"{function.__name__}{arguments!r} in {ours[0]}")
            return function(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for name in _READERS:
            patch.setattr(os, name, watched(getattr(os, name)))
        patch.setattr("builtins.open", watched(open))
        yield strangers
