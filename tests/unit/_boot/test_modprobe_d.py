"""Foreign modprobe configuration that blocks a module of a list at the next boot is reported."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from board import CRYPTO, DMA, Board
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.last_applied import MODPROBE
from ansible_collections.armfleet.vfio.plugins.module_utils._boot.modprobe_d import (
    Line,
    Requirements,
    find_conflicts,
    lines,
    parsed,
    running_commands,
    with_needs,
)
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files

NEEDED = Requirements(["vfio-platform"], {"vfio_platform.reset_required": False})
OTHERS = "etc/modprobe.d/zz-others.conf"
MODPROBE_PROGRAM = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin")


def conflicts(
    root: Path, content: str, path: str = OTHERS, wanted: Requirements = NEEDED
) -> list[str]:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)
    known, needed = lines(Files(str(root)), MODPROBE), with_needs(wanted.modules)
    conflicting = find_conflicts(known, wanted, needed, lambda _module: False)
    return [sentence for _line, sentence in conflicting]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("options vfio_platform reset_required=1", "or omit `reset_required`"),
        ("blacklist vfio-platform", "'blacklist vfio-platform', so vfio_platform, which"),
        ("install vfio_platform /bin/false", "so vfio_platform, which this list requires, is"),
        ("install vfio /bin/true", "so vfio, which this list requires, is not loaded at boot"),
        ("install vfio_platform /bin/echo no", "so vfio_platform, which this list requires, is"),
        ("install vfio_platform exit 1", "so vfio_platform, which this list requires, is"),
        ("options vfio_platform x=1 reset_required=Y", "sets vfio_platform.reset_required=Y, but"),
        ("options vfio-platform \\\n  reset_required=1", "but this list sets it to 0 at each"),
        ("options vfio_pla\\\ntform reset_required=1", "but this list sets it to 0 at each"),
        ("options vfio_platform reset_required=on", "sets vfio_platform.reset_required=on, but"),
        ("options vfio_platform reset_required=TRUE", "reset_required=TRUE, but"),
        ('options vfio_platform reset_required="yes"', 'reset_required="yes", but'),
        ("options vfio_platform reset_required", "sets vfio_platform.reset_required, but"),
        ("options vfio_platform reset_required=1\r", "sets vfio_platform.reset_required=1"),
        # The kernel does not load a module with such a value.
        ("options vfio_platform reset_required=2", "sets vfio_platform.reset_required=2, but"),
        ("options vfio_platform reset_required=", "sets vfio_platform.reset_required=, but"),
        ("options vfio_platform reset_required=0 reset_required=1", "reset_required=1, but"),
        ("alias vfio_platform off", "'alias vfio_platform off', so vfio_platform, which this"),
        ("alias vfio* off", "'alias vfio* off', so vfio_platform, which this list requires, is"),
        ("\t blacklist\tvfio-platform", "so vfio_platform, which this list requires, is"),
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
        # A command that may load it.
        "install vfio_platform /usr/local/sbin/vfio-override",
        "install vfio_platform /bin/true; insmod /root/vfio-platform.ko",
        "options vfio_platform reset_required=0",
        "options vfio_pci ids=1234:5678",
        "blacklist",
        # What modprobe ignores or reads as something else.
        "install vfio_platform",
        "BLACKLIST vfio_platform",
        "blacklist\u00a0vfio_platform",
        "blacklist vfio_platform\r",
        "# \\\nblacklist vfio_platform",
        "options vfio_platform reset_required=1 reset_required=off",
        "alias vfio-platform vfio_platform",
        "alias vfio* vfio_platform",
        "alias vfio off",
    ],
)
def test_what_does_no_harm_is_left_alone(tmp_path: Path, line: str) -> None:
    assert conflicts(tmp_path, line + "\n") == []


@pytest.mark.parametrize(
    ("line", "is_open"),
    [
        ("install vfio_platform /usr/local/sbin/vfio-override", True),
        ("install vfio-platform /bin/sh -c '/root/claim; modprobe vfio-amba'", True),
        ("install vfio /usr/local/sbin/vfio-override", True),
        ("install vfio_platform /bin/true || insmod /root/vfio-platform.ko", True),
        ("install vfio_platform true $(insmod /root/vfio-platform.ko)", True),
        ("install vfio_platform /bin/grep -i x /etc/y", True),
        ("install vfio_platform /sbin/modprobe -i vfio", True),
        ("install vfio_platform /sbin/modprobe vfio_platform", True),
        ("install vfio_platform [ -e /x ] && /sbin/modprobe -i vfio_platform", True),
        ("install vfio_platform /root/claim || /sbin/modprobe -i vfio_platform", True),
        ("install vfio_platform exec modprobe -qi vfio-platform $CMDLINE_OPTS", False),
        ("install vfio_platform /sbin/modprobe -i vfio_platform && /sbin/modprobe x", False),
        ("install vfio_platform /sbin/modprobe --ignore-install $MODPROBE_MODULE", False),
        ("install vfio_platform /bin/false", False),
        ("install vfio_platform : disabled by hand", False),
        ("install vfio_platform /root/claim; /sbin/modprobe -i vfio_platform", False),
        ("install vfio_pci /usr/local/sbin/vfio-override", False),
        ("blacklist vfio_platform", False),
    ],
)
def test_a_command_instead_of_a_module_leaves_open_whether_it_is_loaded(
    tmp_path: Path, line: str, *, is_open: bool
) -> None:
    (read,) = parsed(f"/{OTHERS}", line + "\n")
    assert running_commands([read], with_needs(["vfio-platform"])) == ([read] if is_open else [])
    if is_open:
        assert conflicts(tmp_path, line + "\n") == []


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("module_blacklist=a,vfio", "so vfio, which"),
        ("modprobe.blacklist=vfio_platform", "so vfio_platform, which"),
        ("vfio_platform.reset_required=1", "sets vfio_platform.reset_required=1"),
        ('modprobe.blacklist="acme,vfio_platform"', "so vfio_platform, which"),
        ('"modprobe.blacklist=vfio_platform"', "so vfio_platform, which"),
        ('x="a b" vfio_platform.reset_required="1"', "sets vfio_platform.reset_required=1"),
        ("vfio_platform.reset_required", "sets vfio_platform.reset_required, but"),
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


def test_of_several_files_the_last_one_counts_and_ours_is_one_of_them(tmp_path: Path) -> None:
    on, off = (f"options vfio_platform reset_required={value}\n" for value in (1, 0))
    assert conflicts(tmp_path, on, "etc/modprobe.d/a-before-ours.conf") == []
    assert len(conflicts(tmp_path, on, "etc/modprobe.d/b-after-ours.conf")) == 1
    assert conflicts(tmp_path, off, "run/modprobe.d/c-later.conf") == []
    assert len(conflicts(tmp_path, "vfio_platform.reset_required=1", "proc/cmdline")) == 1


def test_files_that_modprobe_does_not_read_do_not_count(tmp_path: Path) -> None:
    line = "blacklist vfio_platform\n"
    (tmp_path / "etc/modprobe.d/folder.conf").mkdir(parents=True)
    (tmp_path / "etc/modprobe.d/lost.conf").symlink_to("nowhere")
    assert conflicts(tmp_path, line, "etc/modprobe.d/.hidden.conf") == []
    assert len(conflicts(tmp_path, line, "etc/modprobe.d/old.alias")) == 1


# The pieces of files that are compared with what modprobe makes of them.
PIECES = [
    *("blacklist", "options", "install", "alias", "softdep", "remove", "BLACKLIST", "x"),
    *(" ", "  ", "\t", "\r", "\n", "\n", "\n", "\\\n", "\\", "#", "\u00a0", '"', "'"),
    *("vfio", "vfio-pci", "vfio_platform", "a=1", "a", "off", "/bin/true", "pre:", "=", ","),
]


def plain(line: str) -> str:
    """Return a line with single blanks, as modprobe prints some."""
    return " ".join(re.findall("[^ \t]+", line))


def of_command(line: Line) -> Sequence[str]:
    """Return the words after the module that modprobe does not ignore."""
    return () if line.command == "blacklist" else line.rest


def shown(directory: Path) -> Counter[str]:
    """Return the configuration that modprobe has with the files of a directory."""
    command = [MODPROBE_PROGRAM or "", "--config", str(directory), "--showconfig"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return Counter(
        plain(line)
        for line in done.stdout.decode("utf-8", "surrogateescape").split("\n")
        if not line.startswith("#")
    )


@pytest.mark.skipif(MODPROBE_PROGRAM is None, reason="modprobe is not installed here")
def test_what_is_read_of_a_file_is_what_modprobe_reads(tmp_path: Path) -> None:
    empty = shown(tmp_path)

    @given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
    @settings(max_examples=300)
    def look(content: str) -> None:
        (tmp_path / "x.conf").write_bytes(content.encode())
        of_file = shown(tmp_path) - empty
        read = Counter(
            plain(" ".join([line.command, line.module, *of_command(line)]))
            for line in parsed("x.conf", content)
            if line.command in ("blacklist", "options", "install", "alias", "remove")
        )
        kept = {text: n for text, n in of_file.items() if not text.startswith("softdep")}
        assert read == Counter(kept), repr(content)

    look()


def test_a_list_is_refused_as_long_as_its_module_is_kept_away(board: Board) -> None:
    board.write_file(f"/{OTHERS}", "blacklist vfio_platform\n")
    message = board.refusal([CRYPTO], reset_required=False)
    assert "zz-others.conf:1 has 'blacklist vfio_platform'" in message
    # The configuration conflicts with no list without VFIO, and with none that does not persist.
    assert board.apply([DMA]).is_changed
    assert board.apply([CRYPTO], reset_required=False, persistent=False).is_changed


def test_a_list_is_applied_with_a_warning_of_a_command_that_may_load_its_module(
    board: Board,
) -> None:
    line = "install vfio-platform /usr/local/sbin/vfio-override"
    board.write_file(f"/{OTHERS}", line + "\n")
    outcome = board.apply([CRYPTO], reset_required=False)
    assert outcome.is_changed
    (warning,) = [warning for warning in outcome.warnings if OTHERS in warning]
    assert warning == (
        f"/{OTHERS}:1 has '{line}', so whether vfio_platform is loaded at boot depends on that "
        "command. If it sets driver_override, add its devices to this list and remove the line, so "
        "that one configuration decides"
    )
    assert not [text for text in board.apply([DMA]).warnings if OTHERS in text]
