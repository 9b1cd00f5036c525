"""Kernel modules that depmod and modprobe take for real ones; none of them can be loaded."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

DEPMOD = shutil.which("depmod", path="/usr/sbin:/sbin:/usr/bin:/bin")
MODPROBE = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin")
_HEADER, _SECTION, _SYMBOL = "<16sHHIQQQIHHHHHH", "<IIQQQQIIQQ", "<IBBHQQ"
_IDENTITY = b"\x7fELF\x02\x01\x01"
_GLOBAL, _RELOCATABLE, _X86_64 = 0x10, 1, 62


class ModuleSource(NamedTuple):
    """What a module needs, as the names of other modules, and its own softdeps."""

    needs: Sequence[str] = ()
    softdeps: Sequence[str] = ()


def install_modules(root: Path, modules: Mapping[str, ModuleSource]) -> None:
    """Install modules for the running kernel below ``root``, and index them."""
    directory = root / "lib/modules" / os.uname().release
    directory.mkdir(parents=True)
    for name, source in modules.items():
        (directory / f"{name}.ko").write_bytes(_compiled(name, source))
    for listing in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        (directory / listing).touch()
    subprocess.run([DEPMOD or "depmod", "-b", str(root), os.uname().release], check=True)


def _compiled(name: str, source: ModuleSource) -> bytes:
    """Return an ELF file with what depmod reads: module information and symbols."""
    information = [f"name={name}", *(f"softdep={softdep}" for softdep in source.softdeps)]
    names = b"\0"
    symbols = bytes(struct.calcsize(_SYMBOL))
    for need in source.needs:
        symbols += struct.pack(_SYMBOL, len(names), _GLOBAL, 0, 0, 0, 0)
        names += _text(_symbol(need))
    return _elf(
        {
            ".modinfo": (1, b"".join(map(_text, information)), 0),
            "__ksymtab_strings": (1, _text(_symbol(name)), 0),
            ".strtab": (3, names, 0),
            ".symtab": (2, symbols, 3),
        }
    )


def _elf(contents: Mapping[str, tuple[int, bytes, int]]) -> bytes:
    """Return a relocatable file of sections: type, content and the section it is linked to."""
    labels = b"\0" + b"".join(map(_text, [*contents, ".shstrtab"]))
    sections = {**contents, ".shstrtab": (3, labels, 0)}
    start = struct.calcsize(_HEADER)
    body = b""
    headers = bytes(struct.calcsize(_SECTION))
    for name, (kind, content, link) in sections.items():
        size_of_entry = struct.calcsize(_SYMBOL) if name == ".symtab" else 0
        headers += struct.pack(
            *(_SECTION, labels.index(b"\0" + _text(name)) + 1, kind, 0, 0, start + len(body)),
            *(len(content), link, int(name == ".symtab"), 1, size_of_entry),
        )
        body += content + bytes(-len(content) % 8)
    header = struct.pack(
        *(_HEADER, _IDENTITY, _RELOCATABLE, _X86_64, 1, 0, 0, start + len(body), 0, start, 0, 0),
        *(struct.calcsize(_SECTION), len(sections) + 1, len(sections)),
    )
    return header + body + headers


def _symbol(module: str) -> str:
    return "of_" + module.replace("-", "_")


def _text(name: str) -> bytes:
    return name.encode() + b"\0"
