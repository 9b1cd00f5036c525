"""Assert that a device in use is refused without a write, and that an unused one is bound."""

from __future__ import annotations

from typing import Any

import pytest
from board import CRYPTO, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._errors import PolicyError
from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import ACCEPTABLE

NAME = "b000000.crypto"
HOME = f"devices/platform/{NAME}"


def refusal(board: Board, **settings: Any) -> str:
    before = board.everything()
    with pytest.raises(PolicyError) as caught:
        board.apply([CRYPTO], reset_required=False, **settings)
    assert not board.kernel.writes
    assert board.everything() == before
    return str(caught.value)


def assert_free(board: Board, **settings: Any) -> None:
    board.apply([CRYPTO], reset_required=False, **settings)
    assert board.kernel.driver_of(NAME) == "vfio-platform"


def assert_acceptable(board: Board, kind: str) -> None:
    others = [other for other in ACCEPTABLE if other != kind]
    assert f"add '{kind}' to `allow`" in refusal(board, allow=others)
    assert_free(board, allow=[kind])
