# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file of udev rules as udev reads it, and which of its lines udev drops. Pure.

``udev_rules_parse_file``, ``parse_line``, ``parse_token`` and ``rule_resolve_goto`` in
src/udev/udev-rules.c of systemd. Names of users and groups are not resolved.
"""

from __future__ import annotations

import re
from typing import Callable, Iterator, Mapping, NamedTuple, Sequence

_BLANKS = " \t\n\r"
# read_line in src/basic/fileio.c: each of these three ends a line, and some end it together.
_LINE = re.compile("([^\n\r\0]*)(\n\r?\0?|\r\n?\0?|\0|$)")
# UDEV_LINE_SIZE, in bytes.
_LONGEST = 16384
_KEY = re.compile(r"[ \t\n\r,]*((?:[^ \t\n\r={+\-!:]|[+\-!:](?!=))*)(?:\{([^}]*)\})?[ \t\n\r]*")
_OPERATOR = re.compile(r"(==|!=|\+=|-=|:=|=)[ \t\n\r]*")
_VALUE = re.compile(r'"((?:[^"\\]|\\"|\\(?!"))*)"', re.DOTALL)
_ESCAPED_VALUE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PREFIXES = ("ei", "ie", "e", "i", "")
# cunescape_one in src/basic/escape.c.
_ESCAPE = re.compile(
    r"\\(?:([abfnrtvs\\\"'])|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{3})|)"
)
_PLAIN_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "s": " ",
    **{character: character for character in "\\\"'"},
}
_MODE = re.compile(r"[ \t\n\r]*0*[0-7]{1,4}")
_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug", "reset")
_NUMBER = re.compile(r"[ \t\n\r]*[+-]?(0[xX][0-9A-Fa-f]+|0[bB][01]+|0[oO][0-7]+|[0-9]+)")

MATCHES = ("==", "!=")
_ALL = ("==", "!=", "+=", "-=", "=", ":=")
_NOT_REMOVING = ("==", "!=", "+=", "=", ":=")
_ASSIGNING = ("+=", "=", ":=")

BUILTINS = frozenset(
    (
        *("blkid", "btrfs", "dissect_image", "factory_reset", "hwdb", "input_id", "keyboard"),
        *("kmod", "net_driver", "net_id", "net_setup_link", "path_id", "tpm2_id", "uaccess"),
        "usb_id",
    )
)
# What udev 247 to 262 of Debian drop: device_property_can_set in
# src/libsystemd/sd-device/device-util.c.
_READ_ONLY = frozenset(
    (
        *("ACTION", "SEQNUM", "DEVPATH", "SUBSYSTEM", "DEVTYPE", "DRIVER", "DEVNAME", "MAJOR"),
        *("MINOR", "IFINDEX", "DEVLINKS", "TAGS"),
    )
)
# What 262 drops as well, and 257 does not.
_READ_ONLY_LATER = frozenset(
    (
        *("SYNTH_UUID", "DEVPATH_OLD", "MODALIAS", "DEVMODE", "DEVUID", "DEVGID", "DISKSEQ"),
        *("PARTN", "INTERFACE", "INTERFACE_OLD", "CURRENT_TAGS", "USEC_INITIALIZED"),
        "UDEV_DATABASE_VERSION",
    )
)
_READ_ONLY_PREFIX = "SYNTH_ARG_"
# The last version without a change and the first one with it, by NEWS of systemd or as seen with
# udev 247, 252, 257 and 262 of Debian.
_IGNORED_CASE = (256, 257)
_AFTER_252 = (252, 257)
_AFTER_257 = (257, 262)
_LATER_BUILTINS = {
    "net_driver": _AFTER_252,
    **dict.fromkeys(("dissect_image", "factory_reset", "tpm2_id"), _AFTER_257),
}


class Token(NamedTuple):
    """One condition or assignment; ``operator`` is what udev takes it for.

    ``attribute`` is what stands in braces, None without any.
    """

    key: str
    attribute: str | None
    operator: str
    value: str
    ignores_case: bool = False

    @property
    def is_match(self) -> bool:
        return self.operator in MATCHES


class Line(NamedTuple):
    """A rule: its last line in the file, and its tokens in the order in which udev applies them.

    ``goto`` and ``label`` are None without one. If it ``may_be_dropped``, some versions of udev do
    so, and whether this one does is not known.
    """

    number: int
    tokens: Sequence[Token]
    goto: str | None = None
    label: str | None = None
    may_be_dropped: bool = False


class Dropped(NamedTuple):
    """A line that udev ignores, and why."""

    number: int
    reason: str


class RuleFile(NamedTuple):
    """The rules of a file, and what udev drops of it."""

    lines: Sequence[Line]
    dropped: Sequence[Dropped] = ()


class _InvalidError(Exception):
    """Why udev drops a line."""


class _Key(NamedTuple):
    """What a key accepts.

    ``attribute`` decides whether what is in braces is accepted; ``operators`` are the accepted
    ones, and ``taken_as`` is what udev takes some of them for. ``is_prefix_valid`` is whether a
    match may ignore case.
    """

    attribute: Callable[[str | None], bool]
    operators: Sequence[str]
    taken_as: Mapping[str, str] = {}
    is_prefix_valid: bool = True


def _no_attribute(attribute: str | None) -> bool:
    return attribute is None


def _some_attribute(attribute: str | None) -> bool:
    return bool(attribute)


def _is_mode(attribute: str | None) -> bool:
    return not attribute or bool(_MODE.fullmatch(attribute))


_MATCH_ONLY = _Key(_no_attribute, MATCHES)
_SET_ONCE = {"+=": "="}
_NEVER_FINAL = {":=": "="}
_PERMISSION = _Key(_no_attribute, _ASSIGNING, _SET_ONCE)
_ATTRIBUTE = _Key(_some_attribute, _NOT_REMOVING, {"+=": "=", ":=": "="})
_STARTED = dict.fromkeys(_ASSIGNING, "==")
_SOURCES = ("file", "program", "builtin", "db", "cmdline", "parent")
# In the order in which udev applies the tokens of a line: enum UdevRuleTokenType.
_KEYS: Mapping[str, _Key] = {
    "ACTION": _MATCH_ONLY,
    "DEVPATH": _MATCH_ONLY,
    "KERNEL": _MATCH_ONLY,
    "SYMLINK": _Key(_no_attribute, _ALL),
    "NAME": _Key(_no_attribute, _NOT_REMOVING, _SET_ONCE),
    "ENV": _Key(_some_attribute, _NOT_REMOVING, _NEVER_FINAL),
    "CONST": _Key(lambda attribute: attribute in ("arch", "virt", "cvm"), MATCHES),
    "TAG": _Key(_no_attribute, _ALL, _NEVER_FINAL),
    "SUBSYSTEM": _MATCH_ONLY,
    "DRIVER": _MATCH_ONLY,
    "ATTR": _ATTRIBUTE,
    "SYSCTL": _ATTRIBUTE,
    "KERNELS": _MATCH_ONLY,
    "SUBSYSTEMS": _MATCH_ONLY,
    "DRIVERS": _MATCH_ONLY,
    "ATTRS": _Key(_some_attribute, MATCHES),
    "TAGS": _MATCH_ONLY,
    "TEST": _Key(_is_mode, MATCHES, is_prefix_valid=False),
    "PROGRAM": _Key(_no_attribute, _NOT_REMOVING, _STARTED, is_prefix_valid=False),
    "IMPORT": _Key(
        lambda attribute: attribute in _SOURCES, _NOT_REMOVING, _STARTED, is_prefix_valid=False
    ),
    "RESULT": _MATCH_ONLY,
    "OPTIONS": _Key(_no_attribute, _ASSIGNING, _SET_ONCE),
    "OWNER": _PERMISSION,
    "GROUP": _PERMISSION,
    "MODE": _PERMISSION,
    "SECLABEL": _Key(_some_attribute, _ASSIGNING, _NEVER_FINAL),
    "RUN": _Key(lambda attribute: attribute in (None, "program", "builtin"), _ASSIGNING),
    "GOTO": _Key(_no_attribute, ("=",)),
    "LABEL": _Key(_no_attribute, ("=",)),
}
_MATCH_ORDER = [key for key in _KEYS if key not in ("GOTO", "LABEL")]
_ASSIGNMENT_ORDER = (
    *("OPTIONS", "OWNER", "GROUP", "MODE", "TAG", "SECLABEL", "ENV", "NAME", "SYMLINK", "ATTR"),
    *("SYSCTL", "RUN"),
)
# What they start has an effect, although they are conditions.
STARTING = ("PROGRAM", "IMPORT")


def parse(content: str, version: int | None = None) -> RuleFile:
    """Return the rules of a file; ``content`` may have any bytes, as surrogates.

    They are those of a ``version`` of udev, or of any if that is None. At a line of 16384 bytes
    udev stops: the rest is ignored, and by newer versions the whole file.
    """
    parser = _Parser(version)
    for number, text in enumerate(_physical_lines(content), 1):
        if _is_too_long(text):
            parser.dropped.append(Dropped(number, "Line is too long, rest of the file ignored"))
            break
        parser.read(number, text)
    return parser.finish()


def _physical_lines(content: str) -> list[str]:
    lines = []
    position = 0
    while position < len(content):
        match = _LINE.match(content, position)
        # The expression matches anything.
        if match is None or match.end() == position:
            break
        lines.append(match.group(1))
        position = match.end()
    return lines


def _is_too_long(text: str) -> bool:
    if len(text) * 4 < _LONGEST:
        return False
    return len(text.encode("utf-8", "surrogateescape")) >= _LONGEST


class _Parser:
    """Joins continued lines; a line that begins with # is skipped wherever it is."""

    def __init__(self, version: int | None) -> None:
        self._version = version
        self.dropped: list[Dropped] = []
        self._lines: list[Line] = []
        self._continued: str | None = None
        self._is_ignored = False
        self._number = 0

    def read(self, number: int, text: str) -> None:
        """Read the next line of the file."""
        self._number = number
        line = text.lstrip(_BLANKS)
        if line.startswith("#"):
            return
        if self._continued is not None and not self._is_ignored:
            self._is_ignored = _is_too_long(self._continued + line)
            if not self._is_ignored:
                line = self._continued + line
        if line.endswith("\\"):
            if not self._is_ignored:
                self._continued = line[:-1]
            return
        if self._is_ignored:
            self.dropped.append(Dropped(number, "Line is too long, ignored"))
        elif line:
            self._add(number, line)
        self._continued = None
        self._is_ignored = False

    def _add(self, number: int, text: str) -> None:
        try:
            line = _parsed(number, text, self._version)
        except _InvalidError as error:
            self.dropped.append(Dropped(number, str(error)))
            return
        if line is None:
            self.dropped.append(Dropped(number, "The line has no effect, ignoring"))
        else:
            self._lines.append(line)

    def finish(self) -> RuleFile:
        """Return the rules once all lines are read."""
        if self._continued is not None:
            self.dropped.append(Dropped(self._number, "Unexpected EOF after line continuation"))
        return RuleFile(self._with_labels(), self.dropped)

    def _with_labels(self) -> list[Line]:
        """Return the lines, without a GOTO for which there is no LABEL further on."""
        labels: set[str] = set()
        kept = []
        for line in reversed(self._lines):
            resolved = line
            if line.goto is not None and line.goto not in labels:
                self.dropped.append(Dropped(line.number, "GOTO has no matching label, ignoring"))
                resolved = line._replace(goto=None)
                if not _has_effect(resolved.tokens):
                    resolved = resolved._replace(tokens=())
            if line.label is not None:
                labels.add(line.label)
            if resolved.tokens or resolved.label is not None or resolved.goto is not None:
                kept.append(resolved)
        return kept[::-1]


def _parsed(number: int, text: str, version: int | None) -> Line | None:
    """Return a rule; None if it has no effect. _InvalidError if udev drops it."""
    tokens = []
    goto = label = None
    is_known = True
    position = 0
    while position < len(text):
        token, position = _token(text, position)
        if token is None:
            break
        checked = _checked(token)
        if checked is None:
            continue
        is_known = _is_accepted(checked, version) and is_known
        if checked.key == "GOTO":
            goto = checked.value if goto is None else goto
        elif checked.key == "LABEL":
            label = checked.value
        else:
            tokens.append(checked)
    if goto is None and label is None and not _has_effect(tokens):
        return None
    return Line(number, sorted(tokens, key=_rank), goto, label, may_be_dropped=not is_known)


def _is_accepted(token: Token, version: int | None) -> bool:
    """Return whether a token is known to be accepted; _InvalidError if a version drops the line."""
    is_known = True
    for (last_without, first_with), is_dropped_later in _changes(token):
        if version is None or last_without < version < first_with:
            is_known = False
        elif (version >= first_with) is is_dropped_later:
            raise _InvalidError("udev %d does not accept this use of %s" % (version, token.key))
    return is_known


def _changes(token: Token) -> Iterator[tuple[tuple[int, int], bool]]:
    """Yield the versions between which the token came to be accepted, or to be dropped (True)."""
    if token.ignores_case:
        yield _IGNORED_CASE, False
    if token.key == "SYMLINK" and token.operator == "-=":
        yield _AFTER_252, False
    if token.key == "CONST" and token.attribute == "cvm":
        yield _AFTER_257, False
    if token.key == "ENV" and not token.is_match:
        name = token.attribute or ""
        if name in _READ_ONLY_LATER or name.startswith(_READ_ONLY_PREFIX):
            yield _AFTER_257, True
    if token.key in ("IMPORT", "RUN") and token.attribute == "builtin":
        change = _LATER_BUILTINS.get(builtin_name(token.value) or "")
        if change:
            yield change, False


def _token(text: str, position: int) -> tuple[Token | None, int]:
    """Return the next token and the position after it; None where there is none."""
    key = _KEY.match(text, position)
    if key is None or (key.end() == len(text) and not key.group(1) and key.group(2) is None):
        return None, len(text)
    operator = _OPERATOR.match(text, key.end())
    if operator is None:
        raise _InvalidError("Invalid key/value pair")
    position = operator.end()
    prefix = next(prefix for prefix in _PREFIXES if text.startswith(prefix, position))
    expression = _ESCAPED_VALUE if "e" in prefix else _VALUE
    value = expression.match(text, position + len(prefix))
    if value is None:
        raise _InvalidError("Invalid key/value pair")
    content = value.group(1)
    content = _unescaped(content) if "e" in prefix else content.replace('\\"', '"')
    token = Token(key.group(1), key.group(2), operator.group(1), content, "i" in prefix)
    return token, value.end()


def _unescaped(text: str) -> str:
    raw = _ESCAPE.sub(_character, text)
    # Several escaped bytes can be one character.
    return raw.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _character(escape: re.Match[str]) -> str:
    plain, byte, short, long, octal = escape.groups()
    if plain:
        return _PLAIN_ESCAPES[plain]
    is_byte = bool(byte or octal)
    digits = byte or short or long or octal or "0"
    code = int(digits, 8 if octal else 16)
    is_surrogate = 0xD800 <= code <= 0xDFFF
    if code == 0 or is_surrogate or code > (0xFF if is_byte else 0x10FFFF):
        raise _InvalidError("Invalid key/value pair")
    return chr(0xDC00 + code) if is_byte and code > 0x7F else chr(code)


def _checked(token: Token) -> Token | None:
    """Return the token as udev takes it, None if it ignores it; _InvalidError for the line."""
    key = _KEYS.get(token.key)
    if key is None:
        raise _InvalidError("Invalid key '%s'" % token.key)
    if token.ignores_case and not (token.is_match and key.is_prefix_valid):
        raise _InvalidError("Invalid prefix 'i' for %s" % token.key)
    if not key.attribute(token.attribute):
        raise _InvalidError("Invalid attribute for %s" % token.key)
    if token.operator not in key.operators:
        raise _InvalidError("Invalid operator for %s" % token.key)
    taken = token._replace(operator=key.taken_as.get(token.operator, token.operator))
    check = _VALUE_CHECKS.get(token.key)
    return check(taken) if check else taken


def _checked_env(token: Token) -> Token:
    if not token.is_match and token.attribute in _READ_ONLY:
        raise _InvalidError("ENV attribute '%s' cannot be set" % token.attribute)
    return token


def _checked_name(token: Token) -> Token:
    if not token.is_match and token.value in ("", "%k"):
        raise _InvalidError("NAME will take no effect")
    return token


def _checked_import(token: Token) -> Token:
    is_builtin = builtin_name(token.value) is not None
    if token.attribute == "builtin" and not is_builtin:
        raise _InvalidError("Unknown builtin command")
    if token.attribute == "program" and is_builtin:
        return token._replace(attribute="builtin")
    return token


def _checked_run(token: Token) -> Token:
    if token.attribute == "builtin" and builtin_name(token.value) is None:
        raise _InvalidError("Unknown builtin command")
    return token if token.attribute else token._replace(attribute="program")


def _checked_options(token: Token) -> Token | None:
    name, _equals, value = token.value.partition("=")
    if name == "link_priority" and _equals and not _NUMBER.fullmatch(value):
        raise _InvalidError("Failed to parse link priority")
    if name == "log_level" and _equals and value not in (*_LEVELS, *"01234567"):
        raise _InvalidError("Failed to parse log level")
    is_known = token.value in (
        *("dump", "string_escape=none", "string_escape=replace", "db_persist"),
        *("watch", "nowatch"),
    )
    has_value = _equals and name in ("static_node", "link_priority", "log_level")
    return token if is_known or has_value else None


_VALUE_CHECKS: Mapping[str, Callable[[Token], Token | None]] = {
    "ENV": _checked_env,
    "IMPORT": _checked_import,
    "NAME": _checked_name,
    "OPTIONS": _checked_options,
    "RUN": _checked_run,
}


def builtin_name(command: str) -> str | None:
    """Return which of udev's own commands it is, None for a program."""
    name = re.split("[%s]" % _BLANKS, command, maxsplit=1)[0]
    return name if name in BUILTINS else None


def _has_effect(tokens: Sequence[Token]) -> bool:
    return any(not token.is_match or token.key in STARTING for token in tokens)


def _rank(token: Token) -> tuple[int, int, int]:
    """Return the place of a token among those of its line, as sort_tokens orders them."""
    if not token.is_match:
        # Commands of udev itself come before programs.
        is_program = token.key == "RUN" and token.attribute == "program"
        return 1, _ASSIGNMENT_ORDER.index(token.key), int(is_program)
    source = _SOURCES.index(token.attribute or "") if token.key == "IMPORT" else 0
    return 0, _MATCH_ORDER.index(token.key), source
