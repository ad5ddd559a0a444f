"""The demo partner: a news page on a site of its own, with the one-line tag."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

#: Resolves to the loopback address in browsers, and is another site than the coordinator's 127.0.0.1.
HOST = "news.localhost"
_TAG = "<!-- raven tag -->"


class Partner:
    """Serves a folder of files; `index.html` gets the tag where its comment is."""

    def __init__(self, folder: Path):
        partner = self
        self.tag = ""

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(folder))

            def do_GET(self):
                if self.path.split("?")[0] not in ("/", "/index.html"):
                    return super().do_GET()
                page = (folder / "index.html").read_text().replace(_TAG, partner.tag).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, format, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://{HOST}:{self._server.server_port}"

    @contextlib.contextmanager
    def serving(self) -> Iterator["Partner"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
