"""The kernel command line is split as next_arg in lib/cmdline.c does it."""

from __future__ import annotations

import pytest

from ansible_collections.armfleet.vfio.plugins.module_utils._system.kernel_parameters import (
    kernel_parameters,
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
        ('name=a" b"c', ['name=a" b"c']),
        ('name="" x', ["name=", "x"]),
        ('name="a b', ["name=a b"]),
        ('"name=a b', ["name=a b"]),
        ("name=a=b", ["name=a=b"]),
        ("name='a b'", ["name='a", "b'"]),
    ],
)
def test_quotes_keep_blanks_together_and_are_no_part_of_it(
    content: str, parameters: list[str]
) -> None:
    assert kernel_parameters(content) == parameters
