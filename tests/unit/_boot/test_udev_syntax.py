"""Rule files are read as udev reads them, with the lines that it drops."""

from __future__ import annotations

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._boot.udev_syntax import (
    Token,
    parse,
)

SET = 'ENV{A}="1"'


def tokens(text: str) -> list[tuple[str, str | None, str, str]]:
    """Return the tokens of the only rule of a text."""
    (line,) = parse(text).lines
    return [token[:4] for token in line.tokens]


def dropped(text: str) -> list[int]:
    """Return the lines that udev drops, after asserting that no rule is left of them."""
    file = parse(text)
    numbers = sorted(line.number for line in file.dropped)
    assert not {line.number for line in file.lines if line.tokens} & set(numbers)
    return numbers


def numbers(text: str) -> list[int]:
    return [line.number for line in parse(text).lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('KERNEL=="a",ENV{B}="c"', [("KERNEL", None, "==", "a"), ("ENV", "B", "=", "c")]),
        (
            ',, KERNEL == "a" ENV{B}  =\t"c" ,',
            [("KERNEL", None, "==", "a"), ("ENV", "B", "=", "c")],
        ),
        (r'ENV{B}="a\"b\\\"c\d"', [("ENV", "B", "=", r'a"b\\"c\d')]),
        (r'ENV{B}=e"a\tb\x41\101\"\s"', [("ENV", "B", "=", 'a\tbAA" ')]),
        (r'ENV{B}=e"\u00e9\xc3\xa9"', [("ENV", "B", "=", "éé")]),
        (r'ENV{B}=e"\xff"', [("ENV", "B", "=", "\udcff")]),
        ('ENV{B}:="c"', [("ENV", "B", "=", "c")]),
        ('ATTR{b}+="c"', [("ATTR", "b", "=", "c")]),
        ('PROGRAM="x"', [("PROGRAM", None, "==", "x")]),
        ('RUN+="x"', [("RUN", "program", "+=", "x")]),
        ('IMPORT{program}="kmod load x"', [("IMPORT", "builtin", "==", "kmod load x")]),
        # The order in which udev applies them.
        (
            'RUN+="x", ATTR{a}="b", ENV{B}="c", ATTR{d}=="e", KERNEL=="f"',
            [
                ("KERNEL", None, "==", "f"),
                ("ATTR", "d", "==", "e"),
                ("ENV", "B", "=", "c"),
                ("ATTR", "a", "=", "b"),
                ("RUN", "program", "+=", "x"),
            ],
        ),
        (
            'KERNEL=="a", OPTIONS+="nonsense", ENV{B}="c"',
            [("KERNEL", None, "==", "a"), ("ENV", "B", "=", "c")],
        ),
    ],
)
def test_a_rule_has_the_tokens_that_udev_reads(
    text: str, expected: list[tuple[str, str | None, str, str]]
) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize("prefix", ["i", "ei", "ie"])
def test_a_prefix_makes_a_match_ignore_case(prefix: str) -> None:
    (line,) = parse(f'KERNEL=={prefix}"A", {SET}').lines
    assert line.tokens[0] == Token("KERNEL", None, "==", "A", ignores_case=True)


# Seen with udev of Debian bullseye, bookworm, trixie and forky.
VERSIONS = (247, 252, 257, 262)
SINCE_257, SINCE_262, UP_TO_257, ALWAYS = (257, 262), (262,), (247, 252, 257), VERSIONS


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        (f'KERNEL==i"x", {SET}', SINCE_257),
        (f'KERNEL==ei"x", {SET}', SINCE_257),
        (f'KERNEL==e"x", {SET}', ALWAYS),
        (f'CONST{{arch}}=="x", {SET}', ALWAYS),
        (f'CONST{{virt}}=="x", {SET}', ALWAYS),
        (f'CONST{{cvm}}=="x", {SET}', SINCE_262),
        (f'SYMLINK-="x", {SET}', SINCE_257),
        (f'SYMLINK=="x", {SET}', ALWAYS),
        (f'TAG-="x", {SET}', ALWAYS),
        (f'IMPORT{{builtin}}="net_driver", {SET}', SINCE_257),
        (f'IMPORT{{builtin}}="factory_reset status", {SET}', SINCE_262),
        (f'IMPORT{{builtin}}="dissect_image", {SET}', SINCE_262),
        (f'IMPORT{{builtin}}="tpm2_id identify", {SET}', SINCE_262),
        (f'RUN{{builtin}}="factory_reset status", {SET}', SINCE_262),
        (f'RUN{{builtin}}="uaccess", {SET}', ALWAYS),
        *((f'ENV{{{name}}}="x", {SET}', UP_TO_257) for name in ("MODALIAS", "SYNTH_ARG_X")),
        *((f'ENV{{{name}}}="x", {SET}', UP_TO_257) for name in ("DEVMODE", "CURRENT_TAGS")),
        *((f'ENV{{{name}}}="x", {SET}', ()) for name in ("DEVNAME", "DRIVER", "TAGS")),
        (f'ENV{{MODALIAS}}=="x", {SET}', ALWAYS),
        (f'SYSCTL{{x}}="x", OPTIONS="dump", {SET}', ALWAYS),
    ],
)
def test_what_udev_accepts_depends_on_its_version(text: str, accepted: tuple[int, ...]) -> None:
    assert tuple(version for version in VERSIONS if parse(text, version).lines) == accepted
    for version in VERSIONS:
        assert [line.may_be_dropped for line in parse(text, version).lines] in ([False], [])
    # Of an unknown version a rule counts, with a doubt where it is one.
    assert [line.may_be_dropped for line in parse(text).lines] == (
        [accepted != ALWAYS] if accepted else []
    )


@pytest.mark.parametrize(
    ("text", "version", "doubts"),
    [
        (f'KERNEL==i"x", {SET}', 256, []),
        (f'SYMLINK-="x", {SET}', 255, [True]),
        (f'CONST{{cvm}}=="x", {SET}', 259, [True]),
        (f'ENV{{MODALIAS}}="x", {SET}', 258, [True]),
        (f'ENV{{MODALIAS}}="x", {SET}', 270, []),
    ],
)
def test_between_the_versions_that_were_seen_a_rule_is_in_doubt(
    text: str, version: int, doubts: list[bool]
) -> None:
    assert [line.may_be_dropped for line in parse(text, version).lines] == doubts


@pytest.mark.parametrize(
    "text",
    [
        # Text behind a rule, or instead of one.
        f"{SET} # mine",
        "nonsense",
        f'{SET}, KERNEL=="a',
        f"{SET}, KERNEL==a",
        f"{SET}, KERNEL=='a'",
        f'{SET}, KERNEL "a"',
        f'{SET}, ATTR{{b=="c"',
        f'{SET}, ENV {{B}}="c"',
        f'{SET}, KERNEL=="a" \\ ',
        # Keys, attributes and operators.
        f'{SET}, NOTHING=="a"',
        f'{SET}, kernel=="a"',
        f'{SET}, ="a"',
        f'{SET}, KERNEL{{a}}=="b"',
        f'{SET}, KERNEL="a"',
        f'{SET}, ENV=="a"',
        f'{SET}, ENV{{}}=="a"',
        f'{SET}, ENV{{B}}-="a"',
        f'{SET}, ENV{{DRIVER}}="a"',
        f'{SET}, ATTRS{{b}}="a"',
        f'{SET}, ATTR{{b}}-="a"',
        f'{SET}, CONST{{kernel}}=="a"',
        f'{SET}, TEST{{9}}=="a"',
        f'{SET}, TEST="a"',
        f'{SET}, IMPORT{{nothing}}="a"',
        f'{SET}, IMPORT{{builtin}}="nothing"',
        f'{SET}, RUN{{builtin}}+="nothing"',
        f'{SET}, RUN{{}}+="a"',
        f'{SET}, RUN=="a"',
        f'{SET}, NAME="%k"',
        f'{SET}, NAME=""',
        f'{SET}, OPTIONS=="watch"',
        f'{SET}, OPTIONS+="link_priority=high"',
        f'{SET}, OPTIONS+="log_level=loud"',
        f'{SET}, OPTIONS+="log_level="',
        f'{SET}, OPTIONS+="log_level=12"',
        f'{SET}, MODE=="0660"',
        f'{SET}, GOTO=="a"',
        # Prefixes and escapes.
        f'{SET}, ENV{{B}}=i"a"',
        f'{SET}, TEST==i"a"',
        f'{SET}, PROGRAM==i"a"',
        f'{SET}, KERNEL==ii"a"',
        f'{SET}, KERNEL==x"a"',
        rf'{SET}, KERNEL==e"\q"',
        rf'{SET}, KERNEL==e"\x4"',
        rf'{SET}, KERNEL==e"\000"',
        rf'{SET}, KERNEL==e"\ud800"',
        rf'{SET}, KERNEL=="a\"',
        # No effect.
        'KERNEL=="a"',
        'KERNEL=="a", TEST=="b"',
        'KERNEL=="a", OPTIONS+="nonsense"',
        'KERNEL=="a", GOTO="nowhere"',
    ],
)
def test_a_line_that_udev_drops_is_no_rule(text: str) -> None:
    assert dropped(f"{SET}\n{text}\n{SET}\n") == [2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('KERNEL=="a", \\\n  ENV{B}="c"\n' + SET, [2, 3]),
        # A comment is skipped wherever it is, and is not continued.
        ('KERNEL=="a", \\\n  # mine\n  ENV{B}="c"\n' + SET, [3, 4]),
        ("# mine \\\n" + SET, [2]),
        ('KERNEL=="a", \\\n# mine \\\n  ENV{B}="c"', [3]),
        ('KERN\\\nEL=="a", ENV{B}="c"', [2]),
        ('KERN\\\n   EL=="a", ENV{B}="c"', [2]),
        ("\n\n  " + SET, [3]),
        # Carriage returns and NUL end a line as well, and with a line feed the same line.
        (f"{SET}\r\n{SET}\r{SET}\0{SET}\n\r{SET}", [1, 2, 3, 4, 5]),
    ],
)
def test_lines_are_joined_as_udev_joins_them(text: str, expected: list[int]) -> None:
    assert numbers(text) == expected
    assert dropped(text) == []


def test_an_empty_line_ends_a_continued_rule() -> None:
    assert numbers(f"{SET}, \\\n\n{SET}") == [2, 3]


def test_a_blank_after_a_backslash_makes_udev_drop_the_line() -> None:
    assert dropped(f"{SET}, \\ \n{SET}") == [1]


def test_a_rule_that_is_continued_at_the_end_of_the_file_is_dropped() -> None:
    assert dropped(f"{SET}\n{SET}, \\\n") == [2]


def test_a_rule_of_continued_lines_can_be_too_long() -> None:
    long = 'ENV{B}="%s", \\\n' % ("b" * 9000)
    assert dropped(f"{long}{long}{SET}\n{SET}") == [3]
    assert numbers(f"{long}{long}{SET}\n{SET}") == [4]


def test_what_is_after_a_line_that_is_too_long_is_not_read() -> None:
    assert numbers(f"{SET}\n#{'a' * 20000}\n{SET}") == [1]


@pytest.mark.parametrize(
    ("text", "gotos"),
    [
        ('GOTO="a"\nLABEL="a"', ["a", None]),
        # Only labels further on count, and only in the same file.
        ('LABEL="a"\nENV{B}="c", GOTO="a"', [None, None]),
        ('GOTO="a", GOTO="b"\nLABEL="a"\nLABEL="b"', ["a", None, None]),
        ('GOTO="b"\nLABEL="a", LABEL="b"', ["b", None]),
        ('GOTO="a"\nLABEL="a" # mine\nLABEL="a"', ["a", None]),
    ],
)
def test_a_goto_needs_a_label_further_on(text: str, gotos: list[str | None]) -> None:
    assert [line.goto for line in parse(text).lines] == gotos


def test_bytes_of_any_kind_are_read() -> None:
    text = bytes(range(256)).decode("utf-8", "surrogateescape")
    # Line feed, carriage return and NUL are among them.
    assert numbers(f"{text}\n{SET}") == [5]
