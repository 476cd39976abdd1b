"""A small server that speaks as much of Google Cloud Storage as our clients ask: its XML API and its JSON API.

deltalake and obstore use the first, Arrow the second; the emulators that exist serve one of both. It is written after
Google's documentation and shows that the clients reach the same place, not that they agree with Google.

python google_store.py PORT
"""

import email.utils
import http.server
import itertools
import json
import re
import sys
import threading
import urllib.parse
from typing import NamedTuple
from xml.sax.saxutils import escape

PAGE_KEYS = 1_000
JSON_OBJECTS = re.compile(r"/(?:upload/|download/)?storage/v1/b/([^/]+)/o(?:/([^/]+))?")
LOCK = threading.Lock()


class Stored(NamedTuple):
    content: bytes
    generation: int

    @property
    def etag(self) -> str:
        return f'"{self.generation:032x}"'


OBJECTS: dict[str, Stored] = {}
UPLOADS: dict[str, tuple[str, bytes]] = {}
GENERATIONS = itertools.count(1)


def store(key: str, content: bytes, if_generation: str | None) -> Stored | None:
    """Return the stored object; None if it is not of the generation that the request asks for."""
    with LOCK:
        if if_generation is not None and int(if_generation) != (OBJECTS[key].generation if key in OBJECTS else 0):
            return None
        OBJECTS[key] = Stored(content, next(GENERATIONS))
        return OBJECTS[key]


def listed(prefix: str, after: str, delimiter: str) -> tuple[list[str], list[str], bool]:
    """Return keys, common prefixes, and whether there are more."""
    keys: list[str] = []
    prefixes: list[str] = []
    with LOCK:
        every = sorted(key for key in OBJECTS if key.startswith(prefix) and key > after)
    for key in every:
        folder, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        if found and prefix + folder + found not in prefixes:
            prefixes.append(prefix + folder + found)
        elif not found:
            keys.append(key)
        if len(keys) == PAGE_KEYS:
            return keys, prefixes, key != every[-1]
    return keys, prefixes, False


def metadata(key: str) -> dict[str, str]:
    found = OBJECTS[key]
    return {
        "kind": "storage#object", "name": key, "bucket": "music", "size": str(len(found.content)),
        "generation": str(found.generation), "metageneration": "1", "etag": f"C{found.generation}=",
        "updated": "2026-01-01T00:00:00Z", "timeCreated": "2026-01-01T00:00:00Z",
    }  # fmt: skip


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm, wbufsize = "HTTP/1.1", True, 1 << 16

    def handle_request(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        self.asked = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if found := JSON_OBJECTS.fullmatch(url.path):
            self.answer_json(urllib.parse.unquote(found[2] or ""))
        else:
            self.answer_xml(urllib.parse.unquote(url.path).lstrip("/").partition("/")[2])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request  # noqa: N815 # the names of http.server

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_xml(self, key: str) -> None:
        if not key and self.command == "GET":
            self.answer(200, self.xml_page().encode(), Content_Type="application/xml")
        elif self.command == "PUT":
            stored = store(key, self.body, self.headers.get("x-goog-if-generation-match"))
            if stored:
                self.answer(200, ETag=stored.etag, x_goog_generation=str(stored.generation))
            else:
                self.answer(412)
        elif key not in OBJECTS:
            self.answer(404)
        elif self.command == "DELETE":
            del OBJECTS[key]
            self.answer(204)
        else:
            self.answer_content(key)

    def xml_page(self) -> str:
        after = self.asked.get("continuation-token") or self.asked.get("start-after", "")
        keys, prefixes, is_cut = listed(self.asked.get("prefix", ""), after, self.asked.get("delimiter", ""))
        entries = [
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{escape(OBJECTS[key].etag)}</ETag><Size>{len(OBJECTS[key].content)}</Size></Contents>"
            for key in keys
        ]
        entries += [f"<CommonPrefixes><Prefix>{escape(prefix)}</Prefix></CommonPrefixes>" for prefix in prefixes]
        token = f"<NextContinuationToken>{escape(keys[-1])}</NextContinuationToken>" if is_cut else ""
        return f"<ListBucketResult>{''.join(entries)}{token}</ListBucketResult>"

    def answer_content(self, key: str) -> None:
        stored = OBJECTS[key]
        headers = {
            "ETag": stored.etag, "x_goog_generation": str(stored.generation),
            "Last_Modified": email.utils.formatdate(1.77e9, usegmt=True),
        }  # fmt: skip
        if self.headers.get("If-Match") not in (None, stored.etag):
            self.answer(412)
        elif asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            size, begin = len(stored.content), int(asked[1])
            end = min(int(asked[2] or size) + 1, size)
            if begin >= size:
                self.answer(416)
            else:
                span = f"bytes {begin}-{end - 1}/{size}"
                self.answer(206, stored.content[begin:end], Content_Range=span, **headers)
        else:
            self.answer(200, stored.content, **headers)

    def answer_json(self, key: str) -> None:
        if upload := self.asked.get("upload_id"):
            self.continue_upload(upload)
        elif self.command == "POST":
            upload = str(next(GENERATIONS))
            UPLOADS[upload] = (self.asked["name"], b"")
            self.answer(200, Location=f"http://{self.headers['Host']}{self.path}&upload_id={upload}")
        elif not key:
            self.answer_as_json(self.json_page())
        elif key not in OBJECTS:
            self.answer(404)
        elif self.command == "DELETE":
            del OBJECTS[key]
            self.answer(204)
        elif self.asked.get("alt") == "media":
            self.answer_content(key)
        else:
            self.answer_as_json(metadata(key))

    def continue_upload(self, upload: str) -> None:
        key, before = UPLOADS[upload]
        content = before + self.body
        if (self.headers.get("Content-Range") or "").endswith("/*"):  # more will come
            UPLOADS[upload] = (key, content)
            self.answer(308, Range=f"bytes=0-{len(content) - 1}")
        else:
            store(key, content, None)
            self.answer_as_json(metadata(key))

    def json_page(self) -> dict[str, object]:
        after = self.asked.get("pageToken", "")
        keys, prefixes, is_cut = listed(self.asked.get("prefix", ""), after, self.asked.get("delimiter", ""))
        page = {"kind": "storage#objects", "items": [metadata(key) for key in keys], "prefixes": prefixes}
        return page | ({"nextPageToken": keys[-1]} if is_cut else {})

    def answer_as_json(self, content: object) -> None:
        self.answer(200, json.dumps(content).encode(), Content_Type="application/json")

    def log_message(self, *message: object) -> None:
        """Print nothing."""


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
