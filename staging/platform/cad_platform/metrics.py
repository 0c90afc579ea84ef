"""The metrics exporter, in the text format of Prometheus: nobody's work stops without it."""

from __future__ import annotations

import os
import shutil
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .settings import settings

_STARTED = time.time()


class Exporter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/health":
            self._send('{"status":"ok"}', "application/json")
        elif self.path == "/metrics":
            self._send(_metrics(), "text/plain; version=0.0.4")
        else:
            self.send_error(404)

    def _send(self, text: str, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def _metrics() -> str:
    disk = shutil.disk_usage(settings().site)
    values = {
        "cad_uptime_seconds": time.time() - _STARTED,
        "cad_load_1m": os.getloadavg()[0],
        "cad_disk_free_bytes": disk.free,
        "cad_disk_total_bytes": disk.total,
    }
    return "".join(f"# TYPE {name} gauge\n{name} {value}\n" for name, value in values.items())


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", settings().port("METRICS")), Exporter)
    server.serve_forever()
