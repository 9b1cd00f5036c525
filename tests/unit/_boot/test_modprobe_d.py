"""Foreign modprobe configuration that blocks a module of a list at the next boot is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from board import CRYPTO, DMA, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import MODPROBE
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.modprobe_d import (
    Requirements,
    find_conflicts,
    lines,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files

NEEDED = Requirements(["vfio-platform"], {"vfio_platform.reset_required": False})
OTHERS = "etc/modprobe.d/zz-others.conf"


def conflicts(
    root: Path, content: str, path: str = OTHERS, wanted: Requirements = NEEDED
) -> list[str]:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)
    return find_conflicts(lines(Files(str(root)), MODPROBE), wanted)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("options vfio_platform reset_required=1", "or omit `reset_required`"),
        ("blacklist vfio-platform", "'blacklist vfio-platform', so vfio_platform, which"),
        ("install vfio_platform /bin/false", "so vfio_platform, which this list requires, is"),
        ("install vfio /bin/true", "so vfio, which this list requires, is not loaded at boot"),
        ("options vfio_platform x=1 reset_required=Y", "sets vfio_platform.reset_required=Y, but"),
        ("options vfio-platform \\\n  reset_required=1", "but this list sets it to 0 at each"),
    ],
)
def test_a_line_against_the_list_is_named_with_its_place(
    tmp_path: Path, line: str, told: str
) -> None:
    (sentence,) = conflicts(tmp_path, f"# a comment\n{line}\n")
    number = 2 + line.count("\n")
    assert sentence.startswith(f"/{OTHERS}:{number} ")
    assert told in sentence


@pytest.mark.parametrize(
    "line",
    [
        "# blacklist vfio_platform",
        "blacklist acme_crypto",
        # modprobe loads a blacklisted module if another module depends on it.
        "blacklist vfio",
        "install vfio_platform /sbin/modprobe --ignore-install vfio_platform; logger done",
        "options vfio_platform reset_required=0",
        "options vfio_pci ids=1234:5678",
        "blacklist",
    ],
)
def test_what_does_no_harm_is_left_alone(tmp_path: Path, line: str) -> None:
    assert conflicts(tmp_path, line + "\n") == []


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("module_blacklist=a,vfio", "so vfio, which"),
        ("modprobe.blacklist=vfio_platform", "so vfio_platform, which"),
        ("vfio_platform.reset_required=1", "sets vfio_platform.reset_required=1"),
    ],
)
def test_so_is_a_word_of_the_command_line(tmp_path: Path, word: str, told: str) -> None:
    (sentence,) = conflicts(tmp_path, f"root=/dev/vda {word} quiet\n", "proc/cmdline")
    assert sentence.startswith("/proc/cmdline ")
    assert told in sentence


def test_our_own_file_and_files_that_are_hidden_do_not_count(tmp_path: Path) -> None:
    line = "blacklist vfio_platform\n"
    assert conflicts(tmp_path, line, MODPROBE[1:]) == []
    assert conflicts(tmp_path, line, "etc/modprobe.d/notes.txt") == []
    assert len(conflicts(tmp_path, line, "usr/lib/modprobe.d/x.conf")) == 1
    assert conflicts(tmp_path, "", "etc/modprobe.d/x.conf") == []


def test_a_list_is_refused_as_long_as_its_module_is_kept_away(board: Board) -> None:
    board.write_file(f"/{OTHERS}", "blacklist vfio_platform\n")
    before = board.everything()
    with pytest.raises(PolicyError, match=r"zz-others\.conf:1 has 'blacklist vfio_platform'"):
        board.apply([CRYPTO], reset_required=False)
    assert board.everything() == before
    # The configuration conflicts with no list without VFIO, and with none that does not persist.
    assert board.apply([DMA]).is_changed
    assert board.apply([CRYPTO], reset_required=False, persistent=False).is_changed
