# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the running kernel was configured, as far as its files say so. Reads only."""

from __future__ import annotations

import zlib
from typing import Mapping, NamedTuple, Sequence

from .. import _text
from .._system.files import Files

_COMPRESSED = "/proc/config.gz"
# Where distributions have it: Debian and its like, Fedora and its like.
_PLAIN = ("/boot/config-%s", "/lib/modules/%s/config")
# Of a kernel with everything there are 300 KB.
_LONGEST = 2**22


class KernelOptions(NamedTuple):
    """The values of options, "y", "m" or "n", and the file that has them; None if there is none."""

    source: str | None = None
    values: Mapping[str, str] = {}


def kernel_options(files: Files, release: str, names: Sequence[str]) -> KernelOptions:
    """Return the values of these options (CONFIG_ left out) of the running kernel."""
    for source in (_COMPRESSED, *(path % release for path in _PLAIN)):
        content = files.read_drop_in(source)
        if content is not None:
            text = _decompressed(content) if source == _COMPRESSED else content
            given = dict(line.partition("=")[::2] for line in _text.lines(text))
            return KernelOptions(source, {name: given.get("CONFIG_" + name, "n") for name in names})
    return KernelOptions()


def _decompressed(content: str) -> str:
    """Return the text of a gzip file that was read as text, cut where it is absurdly long."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        data = unpacker.decompress(content.encode("utf-8", "surrogateescape"), _LONGEST)
    except zlib.error:
        return ""
    return data.decode("ascii", "replace")
