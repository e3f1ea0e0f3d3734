"""A proxy before an object store that can be told to go away, to answer 503, slowly or in part, to refuse a key."""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit


def _answer(status: str, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>{status}</Message></Error>"
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"{head}\r\n\r\n{body}".encode()


ANSWERS = {"503": _answer("503 Slow Down", "SlowDown"), "403": _answer("403 Forbidden", "AccessDenied")}
# Of six digits and more; Spark asks for ranges, and whoever looks at a file's beginning does not.
LARGE_RANGE = re.compile(rb"HTTP/1.1 206 .*\r\nContent-Length: \d{6}", re.IGNORECASE | re.DOTALL)


class FaultyProxy:
    """Passes connections on while `mode` is "ok"; "gone" ends them, "503" and "403" answer so, "slow" waits a second,
    "breaks off" ends them behind the head of an answer that is a large range of an object.

    A change of mode ends the connections that are open, except for "slow". left: after so many connections that
    misbehaved, it behaves again.
    """

    def __init__(self, target: str) -> None:
        address = urlsplit(target)
        self.target = (str(address.hostname), int(address.port or 80))
        self.mode, self.left, self.misbehaved = "ok", 1_000_000, 0
        self.open: set[socket.socket] = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, mode: str, left: int = 1_000_000) -> None:
        self.mode, self.left = mode, left
        if mode != "slow":
            for connection in tuple(self.open):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.listener.close()
        self.set("gone")

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            mode = self.mode
            if mode != "ok":
                self.misbehaved += 1
                self.left -= 1
                if self.left <= 0:
                    self.mode = "ok"
            if mode == "gone":
                return
            if mode in ANSWERS:
                client.recv(65536)
                client.sendall(ANSWERS[mode])
                return
            if mode == "slow":
                time.sleep(1)
            with socket.create_connection(self.target) as server:
                self.open |= {client, server}
                back = threading.Thread(
                    target=_pump, args=(server, client, mode == "breaks off"), daemon=True
                )
                back.start()
                _pump(client, server)
                back.join()
                self.open -= {client, server}


def _pump(source: socket.socket, target: socket.socket, breaks_off: bool = False) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            if breaks_off and LARGE_RANGE.match(piece):
                target.sendall(piece.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
                break
            target.sendall(piece)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
