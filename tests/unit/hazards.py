"""Assert that a device in use is refused without a write, and that an unused one is bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from board import CRYPTO, Board

from ansible_collections.armfleet.vfio.plugins.module_utils._in_use.kinds import ACCEPTABLE

NAME = "b000000.crypto"
HOME = f"devices/platform/{NAME}"
# The options of a run that waits for the next boot.
AHEAD: dict[str, Any] = {"reset_required": False, "runtime": False}


def refusal(board: Board, **settings: Any) -> str:
    return board.refusal([CRYPTO], reset_required=False, **settings)


def refusal_ahead(
    board: Board, entries: Sequence[dict[str, Any]] = (CRYPTO,), **settings: Any
) -> str:
    """Return the message for a list that waits for the next boot; it is that of check mode."""
    options = {**AHEAD, **settings}
    message = board.refusal(entries, check_mode=True, **options)
    assert board.refusal(entries, **options) == message
    return message


def assert_free(board: Board, **settings: Any) -> None:
    board.apply([CRYPTO], reset_required=False, **settings)
    assert board.kernel.driver_of(NAME) == "vfio-platform"


def assert_acceptable(board: Board, kind: str) -> None:
    others = [other for other in ACCEPTABLE if other != kind]
    assert f"add '{kind}' to `allow`" in refusal(board, allow=others)
    assert_free(board, allow=[kind])
