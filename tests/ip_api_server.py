"""ip-api.com's batch endpoint on this machine, with its limits: 100 addresses a request, 15 requests a minute."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

QUOTA, WINDOW, MOST = 15, 60, 100


class Clock:
    """A clock for server and client that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class IpApiServer:
    """asked: the addresses of every answered request. statuses: those of all requests.

    troubles: what goes wrong with the next requests, one by one: an HTTP status, `cut` (the connection), `garbage`
    (no JSON), `short` (too few answers), or None. places: address → what is said of it, where not the default.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[list[str]] = []
        self.statuses: list[int] = []
        self.troubles: list[int | str | None] = []
        self.places: dict[str, dict[str, Any]] = {}
        self.used, self.window_ends = 0, 0.0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.answer(self, body)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/batch"

    def __enter__(self) -> IpApiServer:
        Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def addresses(self) -> list[str]:
        return [address for batch in self.asked for address in batch]

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        if self.clock() >= self.window_ends:
            self.used, self.window_ends = 0, self.clock() + WINDOW
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble == "cut":
            request.close_connection = True
            self.statuses.append(0)
            return
        addresses = json.loads(body)
        fields = parse_qs(urlsplit(request.path).query)["fields"][0].split(",")
        status = trouble if isinstance(trouble, int) else 200
        if self.used >= QUOTA:
            status = 429
        elif len(addresses) > MOST:
            status = 422
        self.used += status != 429
        answers = [{k: v for k, v in self._place(a).items() if k in fields} for a in addresses]
        text = {"garbage": "<html>", "short": json.dumps(answers[:-1])}.get(str(trouble), json.dumps(answers))
        if status == 200 and trouble is None:
            self.asked.append(addresses)
        self.statuses.append(status)
        request.send_response(status)
        request.send_header("X-Rl", str(max(0, QUOTA - self.used)))
        request.send_header("X-Ttl", str(int(self.window_ends - self.clock()) + 1))
        request.end_headers()
        request.wfile.write(text.encode() if status == 200 else b"")

    def _place(self, address: str) -> dict[str, Any]:
        oslo = {"country": "Norway", "regionName": "Oslo County", "city": "Oslo", "lat": 59.9, "lon": 10.7}
        place = {"status": "success", **oslo, "timezone": "Europe/Oslo", "isp": "Nordnet AS"}
        return self.places.get(address, {**place, "query": address, "as": "AS1"})
