"""A small server that speaks S3: what pyarrow asks for, with faults at will."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import md5
from pathlib import Path
from unittest.mock import patch
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from benchmarks.local_servers.http_server import QuietHandler, QuietServer

KEY, READ_ONLY_KEY = "test-key", "test-reader"
BUCKET = "test-bucket"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": "secret"}
"""Environment variables that let in."""
XML = {"Content-Type": "application/xml"}


@dataclass
class Objects:
    """What a server holds, and how it behaves; it outlives a restart of the server."""

    by_name: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    """Content and time by `bucket/key`."""
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    before: Callable[[str, str], None] = lambda method, name: None
    """Called with each request's method and `bucket/key`; what it raises breaks the connection."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    down: bool = False


class S3Server:
    """A server on a free port of loopback that can go down and come back."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.port = 0
        self.start()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, name: str) -> str:
        return f"s3://{BUCKET}/{name}?endpoint_override={self.endpoint}&scheme=http"

    def names(self, below: str = "") -> list[str]:
        """Return what follows a prefix in names, but of what pyarrow marks as folders."""
        start = f"{BUCKET}/{below}"
        names = [name for name in list(self.objects.by_name) if not name.endswith("/")]
        return sorted(name[len(start) :] for name in names if name.startswith(start))

    def download(self, below: str, folder: Path) -> None:
        """Write all objects below a prefix into a folder."""
        for name in self.names(below):
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self.objects.by_name[f"{BUCKET}/{below}{name}"][0])

    def start(self) -> None:
        self.objects.down = False
        handler = type("Handler", (S3Handler,), {"objects": self.objects})
        self.server = QuietServer(("127.0.0.1", self.port), handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self.thread.start()

    def stop(self) -> None:
        """Refuse connections from now on, and requests on those that are open."""
        self.objects.down = True
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class S3Handler(QuietHandler):
    objects: Objects
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def do_any(self) -> None:
        parts = urlsplit(self.path)
        self.name = unquote(parts.path).lstrip("/")
        self.query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        body = self.read_body()
        self.objects.requests.append((self.command, self.name))
        if self.objects.down:  # on a connection from before
            raise ConnectionError
        self.objects.before(self.command, self.name)
        if problem := self.refusal():
            self.fail(*problem)
            return
        answer = getattr(self, f"answer_{self.command.lower()}")
        answer(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any

    def read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return decode_aws_chunks(body) if self.is_aws_chunked() else body

    def is_aws_chunked(self) -> bool:
        return "aws-chunked" in self.headers.get("Content-Encoding", "")

    def refusal(self) -> tuple[int, str] | None:
        said = self.headers.get("Authorization", "")
        key = said.partition("Credential=")[2].partition("/")[0]
        if key not in (KEY, READ_ONLY_KEY):
            return 403, "InvalidAccessKeyId" if key else "AccessDenied"
        if key == READ_ONLY_KEY and self.command not in ("GET", "HEAD"):
            return 403, "AccessDenied"
        return None if self.name.partition("/")[0] == BUCKET else (404, "NoSuchBucket")

    def fail(self, status: int, code: str) -> None:
        text = (
            f"<Error><Code>{code}</Code><Message>{code} for {escape(self.name)}</Message></Error>"
        )
        self.respond(status, XML, text.encode())

    def answer_get(self, _: bytes) -> None:
        if "list-type" in self.query:
            self.respond(200, XML, list_xml(self.objects, self.name, self.query).encode())
            return
        found = self.objects.by_name.get(self.name)
        if self.name == BUCKET:
            self.respond(200, {}, b"")
        elif found is None:
            self.fail(404, "NoSuchKey")
        else:
            content, written = found
            stamp: dict[str, str] = {
                "Last-Modified": formatdate(written, usegmt=True),
                "ETag": etag(content),
            }
            if "Range" in self.headers:
                start, last = self.headers["Range"].removeprefix("bytes=").split("-")
                end = min(int(last or len(content)), len(content) - 1)
                stamp["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
                self.respond(206, stamp, content[int(start) : end + 1])
            else:
                self.respond(200, stamp, content)

    answer_head = answer_get

    def answer_put(self, body: bytes) -> None:
        source = self.headers.get("x-amz-copy-source")
        if "partNumber" in self.query:
            self.objects.uploads[self.query["uploadId"]][int(self.query["partNumber"])] = body
            self.respond(200, {"ETag": etag(body)}, b"")
        elif source:
            found = self.objects.by_name.get(unquote(source).lstrip("/"))
            if found is None:
                self.fail(404, "NoSuchKey")
                return
            self.objects.by_name[self.name] = found[0], time.time()
            text = f"<CopyObjectResult><ETag>{etag(found[0])}</ETag></CopyObjectResult>"
            self.respond(200, XML, text.encode())
        else:
            self.objects.by_name[self.name] = body, time.time()
            self.respond(200, {"ETag": etag(body)}, b"")

    def answer_post(self, body: bytes) -> None:
        if "uploads" in self.query:
            id = uuid4().hex
            self.objects.uploads[id] = {}
            text = (
                f"<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{escape(self.name)}"
                f"</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            )
        elif "uploadId" in self.query:
            parts = self.objects.uploads.pop(self.query["uploadId"])
            content = b"".join(parts[number] for number in sorted(parts))
            self.objects.by_name[self.name] = content, time.time()
            text = (
                f"<CompleteMultipartUploadResult><ETag>{etag(content)}</ETag>"
                "</CompleteMultipartUploadResult>"
            )
        else:  # ?delete
            for key in ElementTree.fromstring(body).iter():
                if key.tag.endswith("Key"):
                    self.objects.by_name.pop(f"{self.name}/{key.text}", None)
            text = "<DeleteResult></DeleteResult>"
        self.respond(200, XML, text.encode())

    def answer_delete(self, _: bytes) -> None:
        if "uploadId" in self.query:
            self.objects.uploads.pop(self.query["uploadId"], None)
        else:
            self.objects.by_name.pop(self.name, None)
        self.respond(204, {}, b"")


def decode_aws_chunks(body: bytes) -> bytes:
    """Return what `aws-chunked` wraps: sizes before the pieces, checksums after them."""
    content = b""
    while True:
        head, _, body = body.partition(b"\r\n")
        size = int(head.split(b";")[0], 16)
        if not size:
            return content
        content, body = content + body[:size], body[size + 2 :]


def list_xml(objects: Objects, bucket: str, query: dict[str, str]) -> str:
    """Return a page of ListObjectsV2."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    most = int(query.get("max-keys", 1000))
    after = query.get("continuation-token", "")
    contents, folders, last = [], dict[str, None](), ""
    for name in sorted(list(objects.by_name)):
        key = name.removeprefix(f"{bucket}/")
        if not key.startswith(prefix) or key <= after:
            continue
        if len(contents) + len(folders) == most:
            break
        last = key
        rest = key[len(prefix) :]
        if delimiter and delimiter in rest:
            folders[prefix + rest.partition(delimiter)[0] + delimiter] = None
            continue
        content, written = objects.by_name[name]
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(written))
        contents.append(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{stamp}</LastModified>"
            f"<ETag>{etag(content)}</ETag><Size>{len(content)}</Size></Contents>"
        )
    else:
        last = ""
    more = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if last else ""
    common = "".join(
        f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in folders
    )
    return (
        f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
        f"<KeyCount>{len(contents) + len(folders)}</KeyCount><MaxKeys>{most}</MaxKeys>"
        f"<IsTruncated>{'true' if last else 'false'}</IsTruncated>{more}{''.join(contents)}{common}"
        "</ListBucketResult>"
    )


def etag(content: bytes) -> str:
    return f'"{md5(content, usedforsecurity=False).hexdigest()}"'


@contextmanager
def s3_store() -> Iterator[S3Server]:
    """A server, whose credentials are in this process's environment."""
    with s3_server() as server, patch.dict(os.environ, CREDENTIALS):
        yield server


@contextmanager
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    try:
        yield server
    finally:
        server.stop()
