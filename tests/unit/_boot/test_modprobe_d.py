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
    on_command_line,
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
    ("line", "reported"),
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
        ('options vfio_platform reset_required="yes"', "reset_required=yes, but"),
        ("options vfio_platform reset_required", "sets vfio_platform.reset_required, but"),
        ("options vfio_platform reset_required=1\r", "sets vfio_platform.reset_required=1"),
        ("options vfio_platform x=1 reset-required=y", "reset-required=y, but"),
        ("options vfio_platform reset_required=0 reset_required=1", "reset_required=1, but"),
        ("alias vfio_platform off", "'alias vfio_platform off', so vfio_platform, which this"),
        ("alias vfio* off", "'alias vfio* off', so vfio_platform, which this list requires, is"),
        ("\t blacklist\tvfio-platform", "so vfio_platform, which this list requires, is"),
    ],
)
def test_a_line_against_the_list_is_named_with_its_place(
    tmp_path: Path, line: str, reported: str
) -> None:
    (sentence,) = conflicts(tmp_path, f"# a comment\n{line}\n")
    number = 2 + line.count("\n")
    assert sentence.startswith(f"/{OTHERS}:{number} ")
    assert reported in sentence


BEFORE_OURS = "etc/modprobe.d/a-others.conf"


@pytest.mark.parametrize("path", [BEFORE_OURS, OTHERS])
@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("options vfio_platform reset_required=maybe", "reset_required=maybe"),
        ("options vfio_platform reset_required=2", "reset_required=2"),
        ("options vfio_platform reset_required=", "reset_required="),
        ("options vfio-platform reset-required=o", "reset-required=o"),
        ("options vfio_platform reset_required=' 0'", "reset_required='"),
        # Whatever follows.
        ("options vfio_platform reset_required=2 reset_required=0", "reset_required=2"),
        ("options vfio_platform reset_required=0 reset_required=-1", "reset_required=-1"),
        # So it is with a module that it depends on.
        ("options vfio enable_unsafe_noiommu_mode=perhaps", "enable_unsafe_noiommu_mode=perhaps"),
    ],
)
def test_a_value_that_the_kernel_refuses_keeps_the_module_away(
    tmp_path: Path, path: str, line: str, refused: str
) -> None:
    (sentence,) = conflicts(tmp_path, f"{line}\n", path)
    module = line.split()[1].replace("-", "_")
    assert sentence.startswith(
        f"/{path}:1 has '{line}', and the kernel refuses {refused}, so {module}, which this list "
        "requires, is not loaded at boot. Remove that line or parameter"
    )


def test_so_does_one_on_the_command_line(tmp_path: Path) -> None:
    content = 'quiet "vfio_platform.reset_required=may be" vfio-platform.reset_required=0'
    (sentence,) = conflicts(tmp_path, content, "proc/cmdline")
    assert sentence.startswith(
        "/proc/cmdline has '\"vfio_platform.reset_required=may be\"', and the kernel refuses "
        "reset_required=may be, so vfio_platform, which this list requires, is not loaded at boot"
    )


VERSIONS = {"5.10.0-32-arm64": False, "5.18.19": False, "5.19.0": True, "6.12.9": True}


@pytest.mark.parametrize(
    ("word", "release", "is_accepted"),
    [
        *(("TRUE", *version) for version in VERSIONS.items()),
        *(("f", *version) for version in VERSIONS.items()),
        ("on", "5.10.0", True),
        ("Nein", "5.10.0", True),
        ("enabled", "6.15.11", False),
        ("enabled", "6.16.0", True),
        ("D", "6.12.9", False),
        ("D", "7.0.1", True),
        # Distributions bring later changes into their kernels.
        ("TRUE", "5.14.0-427.el9.aarch64", True),
        ("TRUE", None, True),
        ("D", None, True),
        ("x", None, False),
    ],
)
def test_which_booleans_there_are_depends_on_the_kernel(
    tmp_path: Path, word: str, release: str | None, *, is_accepted: bool
) -> None:
    if release:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/version").write_text(f"Linux version {release} (root@x) #1 SMP\n")
    wanted = Requirements(["vfio-platform"], {})
    reported = conflicts(tmp_path, f"options vfio_platform reset_required={word}\n", OTHERS, wanted)
    assert bool(reported) is not is_accepted


@pytest.mark.parametrize(
    ("module", "word", "is_accepted"),
    [
        ("vfio_iommu_type1", "disable_hugepages=maybe", False),
        ("vfio_iommu_type1", "disable_hugepages", True),
        ("vfio_iommu_type1", "dma_entry_limit=65535", True),
        ("vfio_iommu_type1", "dma_entry_limit=0xffffffff", True),
        ("vfio_iommu_type1", "dma_entry_limit=0x100000000", False),
        ("vfio_iommu_type1", "dma_entry_limit=+010", True),
        ("vfio_iommu_type1", "dma_entry_limit=08", False),
        ("vfio_iommu_type1", "dma_entry_limit=" + 5000 * "1", False),
        ("vfio_iommu_type1", "dma_entry_limit=-1", False),
        ("vfio_iommu_type1", "dma_entry_limit=64k", False),
        ("vfio_iommu_type1", "dma_entry_limit", False),
        ("vfio_pci", "nointxmask=maybe", False),
        ("vfio_pci", "ids=1234:5678", True),
        ("vfio_pci", "ids", False),
        ("vfio_pci", "ids=" + "1" * 1023, True),
        ("vfio_pci", "ids=" + "1" * 1024, False),
        # A parameter that the module does not have is ignored.
        ("vfio_pci", "acme=maybe", True),
        ("vfio_platform", "disable_hugepages=maybe", True),
    ],
)
def test_each_parameter_has_its_own_type(
    tmp_path: Path, module: str, word: str, *, is_accepted: bool
) -> None:
    reported = conflicts(tmp_path, f"options {module} {word}\n", OTHERS, Requirements([module], {}))
    assert bool(reported) is not is_accepted


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
        # The kernel stops there, and takes the text in quotes as one.
        "options vfio_platform -- reset_required=1 reset_required=maybe",
        'options vfio_platform x="a reset_required=1 reset_required=maybe"',
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
    ("word", "reported"),
    [
        ("module_blacklist=a,vfio", "so vfio, which"),
        ("modprobe.blacklist=vfio_platform", "so vfio_platform, which"),
        ("vfio_platform.reset_required=1", "sets vfio_platform.reset_required=1"),
        ("modprobe.blacklist=acme,vfio_platform,x", "so vfio_platform, which"),
        ('modprobe.blacklist="acme,vfio_platform,x"', "so vfio_platform, which"),
        # The kernel takes its own parameters out of their marks.
        ('module_blacklist="a,vfio"', "so vfio, which"),
        ('"module_blacklist=a,vfio"', "so vfio, which"),
        ('"vfio_platform.reset_required=1"', "sets vfio_platform.reset_required=1"),
        ('x="a b" vfio_platform.reset_required="1"', "sets vfio_platform.reset_required=1"),
        ("vfio_platform.reset_required", "sets vfio_platform.reset_required, but"),
    ],
)
def test_so_is_a_word_of_the_command_line(tmp_path: Path, word: str, reported: str) -> None:
    (sentence,) = conflicts(tmp_path, f"root=/dev/vda {word} quiet\n", "proc/cmdline")
    assert sentence.startswith("/proc/cmdline ")
    assert reported in sentence


@pytest.mark.parametrize(
    "word",
    [
        # libkmod keeps the marks, and compares names as they are.
        '"modprobe.blacklist=vfio_platform"',
        'modprobe.blacklist="vfio_platform"',
        'modprobe.blacklist="acme,vfio_platform"',
        "modprobe.blacklist=vfio-platform",
        'modprobe."blacklist"=vfio_platform',
        # A mark that nobody closes ends no parameter.
        'vfio_platform.reset_required="1',
        'vfio_platform.re"set_required=1"',
        "vfio_platform.x.reset_required=1",
        "vfio_platform.x=vfio_platform.reset_required=1",
    ],
)
def test_what_libkmod_reads_otherwise_on_the_command_line_does_not_count(
    tmp_path: Path, word: str
) -> None:
    assert conflicts(tmp_path, f"quiet {word}\n", "proc/cmdline") == []


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
    (tmp_path / "etc/modprobe.d/directory.conf").mkdir(parents=True)
    (tmp_path / "etc/modprobe.d/lost.conf").symlink_to("nowhere")
    assert conflicts(tmp_path, line, "etc/modprobe.d/.hidden.conf") == []
    assert len(conflicts(tmp_path, line, "etc/modprobe.d/old.alias")) == 1


@pytest.mark.parametrize("name", ["vfio.conf", "vfio.alias"])
@pytest.mark.parametrize(
    ("kind", "hides"),
    [
        ("directory", False),
        ("link to a directory", False),
        ("link to nowhere", False),
        ("empty file", True),
        ("link to /dev/null", True),
    ],
)
def test_what_has_the_name_of_a_file_hides_it_unless_it_is_a_directory(
    tmp_path: Path, name: str, kind: str, *, hides: bool
) -> None:
    path = tmp_path / "etc/modprobe.d" / name
    path.parent.mkdir(parents=True)
    if kind == "directory":
        path.mkdir()
    elif kind == "empty file":
        path.touch()
    else:
        target = {"link to a directory": ".", "link to nowhere": "x"}.get(kind, "/dev/null")
        path.symlink_to(target)
    reported = conflicts(tmp_path, "blacklist vfio_platform\n", f"usr/lib/modprobe.d/{name}")
    assert bool(reported) is not hides


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


def shown(*directories: Path, command_line: Path | None = None) -> Counter[str]:
    """Return the configuration that modprobe has with the files of directories.

    It can be given another kernel command line, by a file.
    """
    command = [MODPROBE_PROGRAM or ""]
    for directory in directories:
        command += ["--config", str(directory)]
    command.append("--showconfig")
    if command_line:
        bound = 'mount --bind "$1" /proc/cmdline; shift; exec "$@"'
        command = [*IN_NAMESPACE, "sh", "-ec", bound, "sh", str(command_line), *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return Counter(
        plain(line)
        for line in done.stdout.decode("utf-8", "surrogateescape").split("\n")
        if not line.startswith("#")
    )


def read_of(known: Sequence[Line]) -> Counter[str]:
    """Return what is read here, as modprobe shows it."""
    return Counter(
        plain(" ".join([line.command, line.module, *of_command(line)]))
        for line in known
        if line.command in ("blacklist", "options", "install", "alias", "remove")
    )


def without_softdeps(configuration: Counter[str]) -> Counter[str]:
    return Counter({text: n for text, n in configuration.items() if not text.startswith("softdep")})


real_modprobe = pytest.mark.skipif(MODPROBE_PROGRAM is None, reason="modprobe is not installed")


@real_modprobe
def test_what_is_read_of_a_file_is_what_modprobe_reads(tmp_path: Path) -> None:
    empty = shown(tmp_path)

    @given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
    @settings(max_examples=300)
    def look(content: str) -> None:
        (tmp_path / "x.conf").write_bytes(content.encode())
        of_file = shown(tmp_path) - empty
        assert read_of(parsed("x.conf", content)) == without_softdeps(of_file), repr(content)

    look()


NAMES = ["a.conf", "b.conf", "b.alias", "armfleet-vfio.conf", ".x.conf", ".conf", "c.txt", "conf"]
KINDS = ["file", "file", "file", "empty file", "directory", "link to a directory", "/dev/null"]
ENTRIES = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(KINDS), max_size=5)


def fill(directory: Path, entries: dict[str, str]) -> None:
    """Replace all of a directory; each file has a line with its own path."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name, kind in entries.items():
        path = directory / name
        if kind == "directory":
            path.mkdir()
        elif kind.startswith(("link", "/dev")):
            path.symlink_to("." if kind.startswith("link") else kind)
        else:
            line = f"options {directory.parent.name} {name}={len(entries)}\n"
            path.write_text("" if kind == "empty file" else line)


@real_modprobe
def test_which_files_are_read_of_several_directories_is_what_modprobe_decides(
    tmp_path: Path,
) -> None:
    """For 300 pairs of directories, with what has the name of a file and is none."""
    empty = shown(tmp_path)
    directories = [tmp_path / name / "modprobe.d" for name in ("etc", "run")]
    counted: Counter[int] = Counter()

    @given(ENTRIES, ENTRIES)
    @settings(max_examples=300, deadline=None)
    def look(first: dict[str, str], second: dict[str, str]) -> None:
        for directory, entries in zip(directories, (first, second)):
            fill(directory, entries)
        known = lines(Files(str(tmp_path)), "/etc/modprobe.d/ours.conf")
        assert read_of(known) == shown(*directories) - empty, (first, second)
        counted[len(known)] += 1

    look()
    assert len(counted) > 2


IN_NAMESPACE = ["unshare", "--map-root-user", "--mount"]
WORDS = [
    *("modprobe.blacklist=", "modprobe", "blacklist", "module_blacklist=", "vfio-pci", "a_b", "x"),
    *(" ", " ", " ", "\t", "\v", '"', '"', ".", ".", "=", "=", ",", "-", "--", " -- ", "'", "\\"),
]


def can_mount() -> bool:
    """Return whether modprobe can be given a command line: libkmod reads /proc/cmdline alone."""
    program = shutil.which(IN_NAMESPACE[0])
    mounted = [*IN_NAMESPACE, "mount", "--bind", "/dev/null", "/proc/cmdline"]
    return program is not None and subprocess.run(mounted, check=False).returncode == 0


def knows_quotes() -> bool:
    """Return whether this is kmod 29 or later; before, parameters quoted as a whole are ignored."""
    done = subprocess.run([MODPROBE_PROGRAM or "", "--version"], stdout=subprocess.PIPE, check=True)
    version = re.search(rb"kmod version (\d+)", done.stdout)
    return version is not None and int(version.group(1)) >= 29


@real_modprobe
def test_what_is_read_of_the_command_line_is_what_modprobe_reads(tmp_path: Path) -> None:
    """For 300 command lines."""
    if not (can_mount() and knows_quotes()):
        pytest.skip("modprobe cannot be given a kernel command line here")
    given_line = tmp_path / "cmdline"
    given_line.write_text("\n")
    empty = shown(tmp_path, command_line=given_line)
    commands: Counter[str] = Counter()

    @given(st.lists(st.sampled_from(WORDS), max_size=30).map("".join))
    @settings(max_examples=300, deadline=None)
    def look(content: str) -> None:
        given_line.write_text(content + "\n")
        of_line = shown(tmp_path, command_line=given_line) - empty
        read = read_of(on_command_line(content + "\n"))
        assert read == of_line, repr(content)
        commands.update(text.split()[0] for text in read)

    look()
    assert set(commands) == {"blacklist", "options"}


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
