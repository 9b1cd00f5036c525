# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Generate texts for selectors and drivers of an inventory: valid, invalid, nearly valid."""

from __future__ import annotations

import string

from hypothesis import strategies as st

# Characters with a meaning for udev within a quoted value, or that end one.
SPECIAL = ('"', "\n", "\\", "*", "?", "[a-z]", "|", "$kernel", "%k", " ")
# Texts with a meaning in a shell, modprobe, JSON, Jinja, a path, or another part of a udev rule.
FRAGMENTS = (
    "'",
    "\\\n",
    "\r",
    "\t",
    "\0",
    "\x1b[2J",
    "\x7f",
    "\x85",
    "\u2028",
    "\u202e",
    "é",
    "\udc80",
    "[!a]",
    "$env{DRIVER}",
    "$attr{uevent}",
    "$$",
    "%p",
    "%%",
    "{",
    "}",
    "{{ 1 }}",
    "${HOME}",
    "$(id)",
    "`id`",
    ";",
    "&",
    "<",
    ">",
    "#",
    "!",
    "=",
    "==",
    ",",
    ":",
    "/",
    "//",
    "..",
    "/../",
    ".",
    "-",
    "--",
    "~",
    "^",
    "(null)",
    "none",
    '", RUN+="/bin/true',
    '"\nRUN+="/bin/true"\n#',
    '", GOTO="armfleet_vfio_end',
    'e"\\n"',
    "# policy: {}",
    "options vfio x=1",
    "vfio-platform",
    ".auto",
    "a" * 5000,
)

_CHANGES = st.sampled_from(SPECIAL) | st.sampled_from(FRAGMENTS) | st.characters()
_DIGITS = "0123456789abcdef"
_LETTERS = st.sampled_from(string.ascii_lowercase + string.digits + "-_.,+")
_WORD = st.text(_LETTERS, min_size=1, max_size=8)
_ADDRESS = st.text(st.sampled_from(_DIGITS), min_size=1, max_size=9)
_NODE = st.tuples(_WORD, _ADDRESS).map("@".join) | _WORD
_SEGMENT = st.from_regex(r"[A-Z_][A-Z0-9_]{0,3}", fullmatch=True)

GOOD = {
    "dt_path": st.lists(_NODE, min_size=1, max_size=4).map(lambda nodes: "/" + "/".join(nodes))
    | st.lists(_NODE, min_size=1, max_size=3).map("/".join),
    "compatible": st.tuples(_WORD, _WORD).map(",".join),
    "acpi_path": st.lists(_SEGMENT, min_size=1, max_size=4).map(
        lambda segments: "\\" + ".".join(segments)
    ),
    "acpi_hid": st.from_regex(r"[A-Z]{3,4}[0-9A-F]{4}", fullmatch=True),
    "name": st.tuples(_ADDRESS, _WORD).map(".".join) | st.tuples(_WORD, _WORD).map(":".join),
    "driver": st.lists(_WORD, min_size=1, max_size=3).map(" ".join) | _WORD,
    "when_board": st.tuples(_WORD, _WORD).map(",".join)
    | st.lists(_WORD, min_size=1, max_size=3).map(" ".join),
}


@st.composite
def texts(draw: st.DrawFn, kind: str) -> str:
    """Draw a text for this kind of selector, for ``driver`` or for ``when_board``."""
    text = draw(GOOD[kind])
    for _time in range(draw(st.sampled_from((0, 0, 1, 1, 2)))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 2))
        text = text[:start] + draw(_CHANGES) + text[end:]
    return text


def neighbours(text: str) -> set[str]:
    """Return texts that differ slightly from this one."""
    middle = len(text) // 2
    variants = {
        text[:-1],
        text[1:],
        text + "0",
        "0" + text,
        text + text[-1:],
        text[:middle] + text[middle + 1 :],
        text[:middle] + "x" + text[middle + 1 :],
        text.swapcase(),
        text.upper(),
        text.lower(),
        *(text.replace(old, new) for old, new in (("-", "_"), (".", "-"), (",", "."))),
        # Texts that the selector would match if it were read as a pattern.
        *(text.replace(old, new) for old, new in (("*", "xx"), ("?", "x"), ("[a-z]", "x"))),
        *text.split("|"),
    }
    return variants - {text, ""}
