"""An S3 server that answers each request with one error.

python refusing_store.py PORT STATUS CODE MESSAGE
"""

import http.server
import sys

PORT, STATUS = map(int, sys.argv[1:3])
CODE, MESSAGE = sys.argv[3:]
BODY = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{CODE}</Code><Message>{MESSAGE}</Message></Error>'.encode()


class Refusal(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(STATUS)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(BODY)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = refuse  # noqa: N815

    def log_message(self, *message: object) -> None:
        """Print nothing."""


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Refusal).serve_forever()
