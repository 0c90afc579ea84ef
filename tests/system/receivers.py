"""Those who are told: a mail server and a web server that really take messages."""

from __future__ import annotations

import email
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.controller import Controller

from staging.ports import choose_free


@dataclass
class Inbox:
    """What a receiver was sent, as title and text; `refuses` makes it take nothing."""

    address: str = ""
    got: list[tuple[str, str]] = field(default_factory=list)
    refuses: bool = False

    @property
    def titles(self) -> list[str]:
        return [title for title, _ in self.got]


@contextmanager
def chat(access: str = "") -> Iterator[Inbox]:
    """A web server; `access` is put before its host, as in `user:password@`."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not inbox.refuses:
                inbox.got.append((told["title"], told["message"]))
            self.send_response(503 if inbox.refuses else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        inbox.address = f"json://{access}127.0.0.1:{server.server_port}/hook"
        yield inbox
        server.shutdown()


@contextmanager
def mail() -> Iterator[Inbox]:
    """A mail server."""
    inbox = Inbox()

    class Handler:
        async def handle_DATA(self, server: object, session: object, envelope) -> str:
            message = email.message_from_bytes(envelope.content, policy=policy.default)
            text = message.get_body(("plain", "html")).get_content()
            inbox.got.append((message["subject"], text))
            return "250 OK"

    controller = Controller(Handler(), hostname="127.0.0.1", port=choose_free(1)[0])
    controller.start()
    inbox.address = (
        f"mailto://127.0.0.1:{controller.port}?to=ops@example.com&from=lifeboat@example.com"
    )
    yield inbox
    controller.stop()
