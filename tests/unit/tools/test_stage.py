# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A command runs in a copy of the working tree, beside others that run there."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkout import Checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    created = Checkout(tmp_path)
    created.create()
    return created


def stage(checkout: Checkout) -> Path:
    """Stage the checkout, and return the copy: where the command runs."""
    process = checkout.run("python", "tools/stage.py", "pwd", check=True)
    return Path(process.stdout.strip())


def test_the_copy_has_the_files_of_the_working_tree_and_no_others(checkout: Checkout) -> None:
    checkout.write("tools/new.py", "")
    assert (stage(checkout) / "tools/new.py").is_file()
    (checkout.root / "tools/new.py").unlink()
    checkout.write(".gitignore", "/build/\n/tools/parts.py\n")
    copy = stage(checkout)
    assert sorted(path.name for path in (copy / "tools").iterdir()) == [
        "setup",
        "stage.py",
        "suite.py",
    ]


def test_a_directory_whose_files_were_deleted_is_deleted(checkout: Checkout) -> None:
    (checkout.root / "plugins/new").mkdir(parents=True)
    checkout.write("plugins/new/module.py", "")
    assert (stage(checkout) / "plugins/new").is_dir()
    (checkout.root / "plugins/new/module.py").unlink()
    assert not (stage(checkout) / "plugins").exists()


def test_the_files_of_an_ansible_test_that_runs_meanwhile_are_kept(checkout: Checkout) -> None:
    output = stage(checkout) / "tests/output"
    (output / ".tmp/new").mkdir(parents=True)
    (output / ".tmp/metadata.json").write_text("{}")
    stage(checkout)
    assert (output / ".tmp/metadata.json").is_file()
    assert (output / ".tmp/new").is_dir()
