"""The kernel command line is split as next_arg in lib/cmdline.c does it."""

from __future__ import annotations

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._system.kernel_parameters import (
    kernel_parameters,
    parameters_of_any_reader,
)


@pytest.mark.parametrize(
    ("content", "parameters"),
    [
        ("", []),
        ("\n", []),
        ("quiet root=/dev/vda\n", ["quiet", "root=/dev/vda"]),
        ("a\tb\vc  d\n", ["a", "b", "c", "d"]),
        ('name="a b" x', ["name=a b", "x"]),
        ('"name=a b" x', ["name=a b", "x"]),
        ('"name="a b" x', ["name=a", 'b" x']),
        ('name=a" b"c', ['name=a" b"c']),
        ('name=a"b"', ['name=a"b"']),
        ('a"=b c" d', ['a"=b c"', "d"]),
        ('name="" x', ["name=", "x"]),
        ('name=""a b""', ['name="a', 'b""']),
        ('name="', ["name="]),
        ('"', [""]),
        ('name="a b\n', ["name=a b"]),
        ('"name=a b', ["name=a b"]),
        ('"name=a"b', ['name=a"b']),
        ("=x a==b", ["=x", "a==b"]),
        ('="x" =a="b c"', ['="x"', "=a=b c"]),
        ("name='a b'", ["name='a", "b'"]),
        # Blanks are those of ASCII.
        ("name=a\u3000b\x1cc\u0085d", ["name=a\u3000b\x1cc\u0085d"]),
    ],
)
def test_quotes_keep_blanks_together_and_are_no_part_of_it(
    content: str, parameters: list[str]
) -> None:
    assert kernel_parameters(content) == parameters


def test_scripts_of_an_initramfs_find_what_is_behind_a_quote_that_nobody_closes() -> None:
    content = 'console=ttyS0" root=/dev/vda1 x="a b"\n'
    assert kernel_parameters(content) == ['console=ttyS0" root=/dev/vda1 x="a', 'b"']
    assert "root=/dev/vda1" in parameters_of_any_reader(content)
    assert "x=a b" in parameters_of_any_reader('x="a b"')
    assert parameters_of_any_reader("a a=b") == ["a", "a=b"]
