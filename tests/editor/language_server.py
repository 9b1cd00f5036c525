# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""yaml-language-server as an editor talks to it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

Message = dict[str, Any]


# A catalogue of schemas is on the network.
_OFFLINE = {"schemaStore": {"enable": False}, "completion": True, "hover": True, "validate": True}


class LanguageServer:
    """A running server with the ``settings`` that are below ``yaml`` in the editor."""

    def __init__(self, program: Path, directory: Path, settings: Message | None = None) -> None:
        self._process = subprocess.Popen(
            ["node", str(program), "--stdio"],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._directory = directory
        self._settings = {**_OFFLINE, **(settings or {})}
        self._files = 0
        self._requests = 0

    def __enter__(self) -> Self:
        capabilities = {
            "textDocument": {"publishDiagnostics": {}, "completion": {}},
            "workspace": {"configuration": True},
        }
        root = self._directory.as_uri()
        self._request(
            "initialize", {"processId": None, "rootUri": root, "capabilities": capabilities}
        )
        self._notify("initialized", {})
        self._receive_until(lambda message: message.get("method") == "workspace/configuration")
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def diagnostics(self, text: str, name: str = "vars.yml") -> list[tuple[int, str]]:
        """Return what is marked in a file: the number of the line, from 0, and the message."""
        _uri, marked = self._open(text, name)
        return sorted((each["range"]["start"]["line"], each["message"]) for each in marked)

    def completions(self, text: str) -> dict[str, str]:
        """Return what can be inserted at the end of a file, with its documentation."""
        answer = self._request("textDocument/completion", self._end(text))
        return {item["label"]: str(item.get("documentation")) for item in answer["items"]}

    def hover(self, text: str) -> str:
        """Return what is shown for the last key of a file."""
        answer = self._request("textDocument/hover", self._end(text))
        return str(answer["contents"]["value"])

    def _end(self, text: str) -> Message:
        uri, _marked = self._open(text, "vars.yml")
        *lines, last = text.split("\n")
        position = {"line": len(lines), "character": len(last)}
        return {"textDocument": {"uri": uri}, "position": position}

    def _open(self, text: str, name: str) -> tuple[str, list[Message]]:
        self._files += 1
        uri = (self._directory / str(self._files) / name).as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._notify("textDocument/didOpen", {"textDocument": document})
        published = self._receive_until(
            lambda message: (
                message.get("method") == "textDocument/publishDiagnostics"
                and message["params"]["uri"] == uri
            )
        )
        return uri, published["params"]["diagnostics"]

    def _request(self, method: str, params: Message) -> Any:
        self._requests += 1
        number = self._requests
        self._send({"id": number, "method": method, "params": params})
        answer = self._receive_until(
            lambda message: message.get("id") == number and "method" not in message
        )
        return answer["result"]

    def _notify(self, method: str, params: Message) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: Message) -> None:
        assert self._process.stdin
        content = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
        self._process.stdin.flush()

    def _receive_until(self, is_wanted: Callable[[Message], bool]) -> Message:
        while True:
            message = self._receive()
            if "method" in message and "id" in message:
                self._send({"id": message["id"], "result": self._answer(message)})
            if is_wanted(message):
                return message

    def _answer(self, request: Message) -> Any:
        if request["method"] != "workspace/configuration":
            return None
        sections = [item.get("section") for item in request["params"]["items"]]
        return [self._settings if section == "yaml" else None for section in sections]

    def _receive(self) -> Message:
        assert self._process.stdout
        length = 0
        while header := self._process.stdout.readline().strip():
            name, _colon, value = header.partition(b":")
            if name == b"Content-Length":
                length = int(value)
        assert length, "the language server has ended"
        message: Message = json.loads(self._process.stdout.read(length))
        return message
