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
    """What a receiver was sent, as title and text; `refuses` makes a web server take nothing."""

    address: str = ""
    got: list[tuple[str, str]] = field(default_factory=list)
    refuses: bool = False
    refuses_each: int = 0  # each so many-th message; 0: none
    asked: int = 0

    def takes_it(self) -> bool:
        self.asked += 1
        return not (self.refuses or (self.refuses_each and self.asked % self.refuses_each == 0))

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
            takes_it = inbox.takes_it()
            if takes_it:
                inbox.got.append((told["title"], told["message"]))
            self.send_response(200 if takes_it else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        inbox.address = f"json://{access}127.0.0.1:{server.server_port}/hook"
        yield inbox
        server.shutdown()


@dataclass
class StatusProvider:
    """A provider of hosted status pages: what it keeps of one page, and who may write there."""

    token: str
    page: str
    api: str = ""
    incidents: list[dict] = field(default_factory=list)
    components: dict[str, str] = field(default_factory=dict)
    requests: int = 0

    def answer(self, method: str, path: str, access: str, told: dict) -> tuple[int, object]:
        self.requests += 1
        if access != f"OAuth {self.token}":
            return 401, {"error": "Could not authenticate"}
        there, _, rest = path.partition(f"/v1/pages/{self.page}/")
        kind, _, id = rest.partition("/")
        if there or kind not in ("incidents", "components"):
            return 404, {"error": "Not found"}
        if kind == "components":
            if method == "PATCH":
                if id not in self.components:
                    return 404, {"error": "Not found"}
                self.components[id] = told["component"]["status"]
                return 200, {"id": id, "status": self.components[id]}
            return 200, [{"id": i, "status": s, "name": i} for i, s in self.components.items()]
        if method == "GET":
            return 200, list(reversed(self.incidents))
        told = told["incident"]
        if told["status"] not in ("investigating", "identified", "monitoring", "resolved"):
            return 422, {"error": "status"}
        if method == "POST":
            known = {key: told[key] for key in ("name", "impact_override", "metadata")}
            self.incidents.append({"id": f"h{len(self.incidents)}", **known})
            self.incidents[-1]["incident_updates"] = []
        found = next((i for i in self.incidents if not id or i["id"] == id), None)
        if found is None:
            return 404, {"error": "Not found"}
        found = self.incidents[-1] if method == "POST" else found
        found["status"] = told["status"]
        update = {"status": told["status"], "body": told["body"]}
        found["incident_updates"].insert(0, update)
        return (201 if method == "POST" else 200), found


@contextmanager
def status_provider() -> Iterator[StatusProvider]:
    """A web server that answers as a provider of hosted status pages does."""
    provider = StatusProvider(token="canary-of-the-page", page="kctbh9vrtdwd")

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            told = json.loads(self.rfile.read(length)) if length else {}
            path = self.path.partition("?")[0]
            access = self.headers.get("Authorization", "")
            status, said = provider.answer(self.command, path, access, told)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        provider.api = f"http://127.0.0.1:{server.server_port}/v1"
        yield provider
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
