"""Foreign configuration of dracut that drops drivers of a list is named before a rebuild.

What dracut-install does was seen with versions 051, 059, 106 and 112 of Debian.
"""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from board import CRYPTO, DMA, Board
from test_initramfs import DEPENDENCIES, SETTINGS, TOOLS, host

from ansible_collections.armfleet.vfio.plugins.module_utils._boot import dracut_conf
from ansible_collections.armfleet.vfio.plugins.module_utils._system.files import Files

RELEASE = os.uname().release
EARLIER = "/etc/dracut.conf.d/10-local.conf"
LATER = "/etc/dracut.conf.d/90-local.conf"
NEEDS_VFIO = DEPENDENCIES + "kernel/drivers/vfio/vfio.ko.xz:\n"


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return host(tmp_path, *TOOLS["dracut"])


def problems(board: Board) -> list[str]:
    return board.refused([CRYPTO], **SETTINGS)


def warnings(board: Board) -> list[str]:
    return list(board.check([CRYPTO], **SETTINGS).warnings)


@pytest.mark.parametrize(
    ("path", "content", "line"),
    [
        (EARLIER, 'add_drivers+=" nosuch "\n', 1),
        (EARLIER, "# mine\n\nadd_drivers+=' vfio nosuch '\n", 3),
        (EARLIER, 'add_drivers+=" vfio-platform \\\n  nosuch "\n', 2),
        (EARLIER, 'add_drivers+="\nvfio\nnosuch\n"\n', 3),
        (EARLIER, "add_drivers+=nosuch.ko\n", 1),
        (EARLIER, "add_drivers+=/lib/modules/nosuch.ko\n", 1),
        ("/etc/dracut.conf", 'export add_drivers=" nosuch "  # "\n', 1),
        ("/usr/lib/dracut/dracut.conf.d/01-dist.conf", 'a=1; add_drivers+=" nosuch "\n', 1),
    ],
)
def test_a_driver_that_does_not_exist_is_named_with_file_and_line(
    board: Board, path: str, content: str, line: int
) -> None:
    board.write_file(f"/lib/modules/{RELEASE}/modules.dep", NEEDS_VFIO)
    board.write_file(path, content)
    (problem,) = problems(board)
    assert problem.startswith(f"{path}:{line} adds the driver ")
    assert f"nosuch{'.ko' if '.ko' in content else ''}, which kernel {RELEASE} does not" in problem
    assert "so dracut omits all drivers after it" in problem
    assert "such as vfio_iommu_type1, vfio_platform, vfio_platform_acme, which" in problem
    assert board.check([CRYPTO], initramfs="never", **SETTINGS).is_changed


@pytest.mark.parametrize(
    "content",
    [
        'add_drivers+=" vfio vfio-platform vfio_platform.ko =drivers/usb "\n',
        'add_drivers+=" builtin-driver "\n',
        'add_drivers+=" alias-of-it fs-ext4 renamed "\n',
        'force_drivers+=" nosuch "\nfilesystems+=" nosuch "\n',
        'add_drivers+=" $mine $(cat /etc/mine nosuch) ${other:-nosuch} `nosuch` "\n',
        'if [[ $kernel == 5* ]]; then\n  add_drivers+=" nosuch "\nfi\n',
        '[[ $kernel == 5* ]] && add_drivers+=" nosuch "\n',
        'mine() {\n  add_drivers+=" nosuch "\n}\n',
        '# add_drivers+=" nosuch "\n',
        "echo 'add_drivers+=\" nosuch \"'\n",
        'my_add_drivers+=" nosuch "\n',
        'add_drivers+=" nosuch "\nadd_drivers=""\n',
        'hostonly="yes"\nhostonly_mode="strict"\n',
        'omit_drivers+=" vfio_platform nouveau "\n',
        'omit_drivers+=" * "\n',
    ],
)
def test_what_drops_nothing_of_ours_is_no_conflict(board: Board, content: str) -> None:
    board.write_file(f"/lib/modules/{RELEASE}/modules.dep", NEEDS_VFIO)
    board.write_file(f"/lib/modules/{RELEASE}/modules.builtin", "kernel/builtin_driver.ko\n")
    board.write_file(
        f"/lib/modules/{RELEASE}/modules.alias", "alias fs-* ext4\nalias alias_of_it a\n"
    )
    board.write_file("/etc/modprobe.d/local.conf", "alias renamed vfio\n")
    board.write_file(EARLIER, content)
    assert warnings(board) == []


def test_what_comes_after_ours_stops_nothing_of_ours(board: Board) -> None:
    board.write_file(LATER.replace("90", "zz"), 'add_drivers+=" nosuch "\n')
    assert warnings(board) == []


@pytest.mark.parametrize("path", ["/etc/dracut.conf.d/.hidden.conf", EARLIER + ".bak"])
def test_a_file_that_dracut_does_not_read_is_none(board: Board, path: str) -> None:
    board.write_file(path, 'add_drivers+=" nosuch "\n')
    assert warnings(board) == []


def test_a_namesake_in_etc_hides_that_of_a_package(board: Board) -> None:
    board.write_file(EARLIER, "\n")
    board.write_file("/usr/lib/dracut/dracut.conf.d/10-local.conf", 'add_drivers+=" nosuch "\n')
    assert warnings(board) == []


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("armfleet.conf", True),
        ("armfleet-vfio.d.conf", False),
        ("armfleet-vfio-local.conf", False),
        ("armfleet.vfio.conf", True),
        ("armfleet_vfio.conf", False),
        ("9.conf", True),
        ("zz.conf", False),
    ],
)
def test_files_come_in_the_order_of_versions(board: Board, name: str, *, stops: bool) -> None:
    board.write_file(f"/etc/dracut.conf.d/{name}", 'add_drivers+=" nosuch "\n')
    assert bool(problems(board) if stops else warnings(board)) is stops


@pytest.mark.parametrize("kind", ["link to nowhere", "directory", "link to /dev/null"])
def test_what_exists_hides_its_namesakes(board: Board, kind: str) -> None:
    path = board.files_root / EARLIER[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/null" if "null" in kind else "nowhere")
    board.write_file("/usr/lib/dracut/dracut.conf.d/10-local.conf", 'add_drivers+=" nosuch "\n')
    if kind == "link to nowhere":
        assert problems(board)
    else:
        assert warnings(board) == []


# dropindirs_sort in dracut.sh of dracut 051, 059, 106 and 112, which are the same but for blanks.
DROP_INS = """
dropindirs_sort() {
    suffix=$1; shift
    for d in "$@"; do
        for i in "$d/"*"$suffix"; do
            if [[ -e $i ]]; then printf "%s\\n" "${i##*/}"; fi
        done
    done | sort -Vu | {
        readarray -t files
        for f in "${files[@]}"; do
            for d in "$@"; do
                if [[ -e "$d/$f" ]]; then printf "%s\\n" "$d/$f"; continue 2; fi
            done
        done
    }
}
cd "$1" && dropindirs_sort .conf etc/dracut.conf.d usr/lib/dracut/dracut.conf.d
"""
NAME_PIECES = ["a", "b", "-", "_", ".", "~", "0", "1", "01", "10", "9", ".d", "armfleet-vfio", "A"]


def test_generated_names_come_in_the_order_in_which_dracut_reads_them(tmp_path: Path) -> None:
    """300 pairs of directories, given to the function of dracut."""
    chosen = random.Random(1)
    ours = "/etc/dracut.conf.d/armfleet-vfio.conf"
    for number in range(300):
        root = tmp_path / str(number)
        for directory in ("etc/dracut.conf.d", "usr/lib/dracut/dracut.conf.d"):
            (root / directory).mkdir(parents=True)
            for _file in range(4):
                name = "".join(chosen.choices(NAME_PIECES, k=chosen.randint(1, 4))) + ".conf"
                path = root / directory / name
                if path.exists() or path.is_symlink():
                    continue
                if chosen.random() < 0.2:
                    path.symlink_to("nowhere")
                else:
                    path.touch()
        (root / ours[1:]).touch()
        command = ["bash", "-c", DROP_INS, "bash", str(root)]
        environment = {**os.environ, "LC_ALL": "C"}
        listed = subprocess.check_output(command, text=True, env=environment).split("\n")[:-1]
        before, after = dracut_conf.drop_ins(Files(str(root)), ours)
        assert [*before, ours, *after] == [f"/{path}" for path in listed], listed


def test_names_that_run_together_are_one_driver(board: Board) -> None:
    board.write_file(EARLIER, 'add_drivers+="vfio"\nadd_drivers+="vfio_platform"\n')
    (problem,) = problems(board)
    assert problem.startswith(f"{EARLIER}:1 adds the driver vfiovfio_platform, which kernel ")


def test_each_kernel_has_modules_of_its_own(board: Board) -> None:
    board.write_file("/lib/modules/9.9/modules.dep", DEPENDENCIES + "kernel/new.ko:\n")
    board.write_file(EARLIER, 'add_drivers+=" new "\n')
    (problem,) = problems(board)
    assert f"which kernel {RELEASE} does not have" in problem


def test_a_kernel_without_our_modules_loses_drivers_of_others(board: Board) -> None:
    board.write_file("/lib/modules/6.1/modules.dep", "kernel/nvme.ko:\n")
    board.write_file(f"/lib/modules/{RELEASE}/modules.dep", DEPENDENCIES + "kernel/nvme.ko:\n")
    board.write_file("/etc/dracut.conf.d/disk.conf", 'add_drivers+=" nvme "\n')
    (warning,) = warnings(board)
    assert warning.startswith(
        "/etc/dracut.conf.d/disk.conf:1 adds the driver nvme, but dracut omits it from the image "
        "of kernel 6.1, which does not have the module vfio_iommu_type1 of this list. "
    )


@pytest.mark.parametrize("name", ["add_drivers", "install_items"])
def test_a_later_file_that_replaces_the_variable_is_named(board: Board, name: str) -> None:
    board.write_file(LATER.replace("90", "zz"), f'\n{name}="x"\n')
    problem = problems(board)[0]
    assert problem.startswith(
        f"/etc/dracut.conf.d/zz-local.conf:2 replaces {name} of dracut, so images lack "
    )


def test_images_without_modules_are_named(board: Board) -> None:
    board.write_file(EARLIER, 'no_kernel="yes"\n')
    (problem,) = problems(board)
    assert problem.startswith(
        f"{EARLIER}:1 sets no_kernel=yes, so images of dracut have no modules"
    )


@pytest.mark.parametrize(
    ("word", "omitted"),
    [
        ("vfio", {"vfio"}),
        ("vfio.*", {"vfio", "vfio_iommu_type1", "vfio_platform", "vfio_platform_acme"}),
        ("vfio_plat.*acme", {"vfio_platform_acme"}),
        ("plat", set()),
    ],
)
def test_a_pattern_that_omits_ours_or_what_it_needs_is_named(
    board: Board, word: str, omitted: set[str]
) -> None:
    board.write_file(f"/lib/modules/{RELEASE}/modules.dep", NEEDS_VFIO)
    board.write_file(EARLIER, f'omit_drivers+=" {word} "\n')
    named = problems(board) if omitted else warnings(board)
    assert {problem.split()[2] for problem in named} == omitted
    assert all(f"(omit_drivers has '{word}')" in problem for problem in named)
    assert all("of this list requires. Remove it there" in problem for problem in named)


def test_old_versions_omit_by_a_part_of_the_name(board: Board) -> None:
    board.write_file("/usr/bin/dracut", 'omit_drivers_corrected+="$d|"\n')
    board.write_file(EARLIER, 'omit_drivers+=" plat "\n')
    assert {problem.split()[2] for problem in problems(board)} == {
        *("vfio_platform", "vfio_platform_acme")
    }


@pytest.mark.parametrize(
    ("script", "omitted"),
    [("omit_drivers=${omit_drivers/-/_} ^$d$|", 0), ("omit_drivers=${omit_drivers//-/_} ^$d$|", 1)],
)
def test_old_versions_make_an_underscore_of_the_first_dash_alone(
    board: Board, script: str, omitted: int
) -> None:
    base = "kernel/vfio-platform.ko: kernel/vfio-platform-base.ko\n"
    board.write_file(f"/lib/modules/{RELEASE}/modules.dep", base)
    board.write_file("/usr/bin/dracut", script)
    board.write_file(EARLIER, 'omit_drivers+=" some-other vfio-platform-base vfio-platform "\n')
    assert len(problems(board) if omitted else warnings(board)) == omitted


@pytest.mark.parametrize(("version", "stops"), [("051-1", True), ("059-4", False), ("112", False)])
def test_the_oldest_version_stops_at_a_driver_that_is_built_in(
    board: Board, version: str, stops: bool
) -> None:
    board.write_file("/usr/lib/dracut/dracut-version.sh", f"DRACUT_VERSION={version}\n")
    board.write_file(f"/lib/modules/{RELEASE}/modules.builtin", "kernel/ext4.ko\n")
    board.write_file(EARLIER, 'add_drivers+=" ext4 "\n')
    assert len(problems(board) if stops else warnings(board)) == stops


def test_an_image_without_udev_is_a_warning(board: Board) -> None:
    board.write_file(EARLIER, 'omit_dracutmodules+=" plymouth udev-rules "\n')
    (warning,) = warnings(board)
    assert warning.startswith(f"{EARLIER}:1 omits udev-rules from images of dracut, so the udev ")


MODULE_SETUP = "/usr/lib/dracut/modules.d/%s/module-setup.sh"
SETUP = "#!/bin/bash\ncheck() {\n    return 0\n}\ndepends() {\n    echo %s\n    return 0\n}\n"


@pytest.mark.parametrize(
    ("content", "has_udev"),
    [
        ('dracutmodules+=" bash "\n', False),
        ('dracutmodules="bash fs-lib"\n', False),
        ('dracutmodules=" all "\n', False),
        ('dracutmodules+=" bash udev-rules "\n', True),
        ('dracutmodules+=" bash systemd-udevd "\n', True),
        # Modules of dracut bring along what they depend on.
        ('dracutmodules+=" base "\n', True),
        ('dracutmodules+=" rootfs "\n', True),
        ('dracutmodules+=" bash "\nadd_dracutmodules+=" rootfs "\n', True),
        ('dracutmodules+=" bash "\nforce_add_dracutmodules+=" udev-rules "\n', True),
        ('dracutmodules="auto"\n', True),
        ("dracutmodules=all\n", True),
        ('dracutmodules+=" bash "\ndracutmodules=""\n', True),
        ('add_dracutmodules+=" bash "\n', True),
    ],
)
def test_so_is_one_of_named_modules_without_it(
    board: Board, content: str, *, has_udev: bool
) -> None:
    for directory, needs in (
        ("00bash", ""),
        ("99base", "udev-rules"),
        ("90rootfs", "fs-lib base"),
        ("99fs-lib", "fs-lib"),
    ):
        board.write_file(MODULE_SETUP % directory, SETUP % needs)
    board.write_file(EARLIER, content)
    reported = warnings(board)
    assert len(reported) == (not has_udev)
    for sentence in reported:
        assert sentence.startswith(f"{EARLIER}:1 sets dracutmodules, but neither these modules of")
        assert "so the udev rules do not run in the initramfs" in sentence


@pytest.mark.parametrize(
    "word",
    ['"rd.driver.blacklist=a,vfio-platform"', 'rd.driver.blacklist="a,vfio-platform"'],
)
def test_dracut_takes_a_parameter_out_of_its_marks(board: Board, word: str) -> None:
    """As dracut-getargs of dracut 059 does."""
    board.write_file("/proc/cmdline", f"root=x {word}\n")
    (warning,) = warnings(board)
    assert ", so vfio_platform is not loaded in the initramfs" in warning


@pytest.mark.parametrize(
    ("parameters", "module"),
    [
        ("blacklist=a,vfio-platform quiet", "vfio_platform"),
        ("blacklist=vfio_platform_acme", "vfio_platform_acme"),
        ("blacklist=vfio_platform blacklist=nouveau", None),
        # A shell cuts the line at blanks, and keeps marks.
        ('x="a blacklist=vfio_platform b"', "vfio_platform"),
        ('blacklist="vfio_platform"', None),
        ('"blacklist=vfio_platform"', None),
        ("rd.driver.blacklist=vfio_platform", None),
    ],
)
def test_so_does_initramfs_tools_with_its_own_parameter(
    tmp_path: Path, parameters: str, module: str | None
) -> None:
    board = host(tmp_path, *TOOLS["initramfs-tools"])
    board.write_file("/proc/cmdline", f"root=x {parameters}\n")
    reported = [text for text in warnings(board) if "is not loaded in the initramfs" in text]
    assert len(reported) == (module is not None)
    named = "is not loaded in the initramfs: devices that need it have no driver until the root "
    assert all(f", so {module} {named}" in text for text in reported)


@pytest.mark.parametrize("key", ["rd.driver.blacklist", "rdblacklist"])
def test_a_blacklist_of_the_initramfs_is_a_warning(board: Board, key: str) -> None:
    board.write_file("/proc/cmdline", f"root=x {key}=nouveau,vfio-platform rd.driver.pre=acme\n")
    (warning,) = warnings(board)
    assert warning.startswith(
        f"/proc/cmdline has '{key}=nouveau,vfio-platform', so vfio_platform is not loaded in the "
    )


def test_a_list_without_modules_loses_none(board: Board) -> None:
    board.write_file(EARLIER, 'add_drivers+=" nosuch "\nno_kernel="yes"\nomit_drivers+=" .* "\n')
    assert board.apply([DMA]).is_changed


def test_a_release_is_not_refused(board: Board) -> None:
    board.apply([CRYPTO], **SETTINGS)
    board.write_file(EARLIER, 'add_drivers+=" nosuch "\n')
    assert board.apply([]).is_changed


def test_without_others_drivers_the_modules_of_other_kernels_are_not_read(board: Board) -> None:
    """They are long, and a run that changes nothing reads as little as it can."""
    board.write_file("/lib/modules/6.1/modules.dep", DEPENDENCIES)
    board.write_file(EARLIER, 'hostonly="yes"\ninstall_items+=" /etc/mine "\n')
    os.mkfifo(board.files_root / "lib/modules/6.1/modules.builtin")
    assert warnings(board) == []


def test_initramfs_tools_read_none_of_it(tmp_path: Path) -> None:
    board = host(tmp_path, *TOOLS["initramfs-tools"])
    board.write_file(EARLIER, 'add_drivers+=" nosuch "\n')
    assert board.apply([CRYPTO], **SETTINGS).is_changed


PIECES = [
    *(
        '"',
        "'",
        "\\",
        "\n",
        " ",
        "  ",
        "\t",
        "#",
        "# x\n",
        ";",
        "a",
        "b-c",
        "\\\n",
        '" d "',
        "'e f'",
    ),
    *("add_drivers=", "add_drivers+=", "\nadd_drivers+=", 'add_drivers+=" g "\n', "\\\\", '\\"'),
    *("\nother=", "\nadd_drivers=", "; add_drivers+=h", " x=1\n", "=", "+="),
]


def test_files_are_read_as_bash_reads_them(tmp_path: Path) -> None:
    """Files that bash rejects are not compared."""
    generator = random.Random(21)
    texts = ["".join(generator.choices(PIECES, k=generator.randint(1, 9))) for _file in range(1000)]
    configured = tmp_path / "etc/dracut.conf.d"
    configured.mkdir(parents=True)
    program = (
        'cd "$0" && for f in *; do (unset add_drivers; . "./$f" || exit; printf "%s=%s\\0" "$f" '
        '"$add_drivers") 2>/dev/null; done'
    )
    for number, text in enumerate(texts):
        (configured / f"{number:04}").write_text(text)
    shell = ["bash", "--norc", "-c", program, str(configured)]
    output = subprocess.run(shell, capture_output=True, check=False, text=True).stdout
    answers = dict(answer.partition("=")[::2] for answer in output.split("\0")[:-1])
    differences = {}
    for name, value in answers.items():
        kept = ""
        for assignment in dracut_conf.parsed(name, texts[int(name)]):
            if assignment.name == "add_drivers":
                own = "".join(character.text for character in assignment.value)
                kept = kept + own if assignment.is_appended else own
        if kept != value:
            differences[texts[int(name)]] = (kept, value)
    assert differences == {}
    assert len(answers) >= 300


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ("a" + "=bb" * 5000 + " cmd x=1", 0),
        ("a=1 " * 20000, 20000),
        ("a=1 " * 20000 + "cmd", 0),
        ("a=1;" * 20000, 20000),
        ("a=1 \\\n" * 20000, 20000),
        ("a=1" + " " * 20000 + "cmd x=1", 0),
        ("echo " + "a=1 " * 20000, 0),
    ],
)
def test_a_line_of_many_assignments_takes_no_longer_than_others(content: str, count: int) -> None:
    assert len(dracut_conf.parsed("x", content)) == count


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("a=1 b=2\n", "ab"),
        ("a=1 b=2 cmd\nc=3\n", "c"),
        ("a=1 cmd b=2\n", ""),
        ("a=1; b=2\n", "ab"),
        ("a=b=c d=e\n", "ad"),
        ("export a=1\n", "a"),
        ("x && a=1\n", ""),
    ],
)
def test_an_assignment_for_a_command_alone_is_none(content: str, names: str) -> None:
    assert "".join(each.name for each in dracut_conf.parsed("x", content)) == names
