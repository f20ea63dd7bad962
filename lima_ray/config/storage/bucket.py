"""A bucket of S3 or Google Cloud Storage by URL: read, written and listed, and waited for.

    s3://bucket/runs       gs://bucket/runs
    s3://bucket/runs?endpoint_override=127.0.0.1:9000&scheme=http     a server that speaks S3

Credentials are those of the provider's own chain: a role of the machine or pod, files, variables.
None stands in a URL. What does not answer is asked again, for as long as `patience_s` says.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import xxhash

from lima_ray.config.errors import UserError

Answer = TypeVar("Answer")
Checksum = tuple[int, str]
"""Bytes of a file and their hash."""
URL = re.compile(r"(?P<scheme>s3|gs):/+(?P<place>[^?]*)(\?(?P<query>.*))?")
OPTIONS = {
    "s3": ("endpoint_override", "scheme", "region", "anonymous"),
    "gs": ("endpoint_override", "scheme", "anonymous"),
}
"""What may stand after the `?` of a URL."""
S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Variables that name another server than Amazon's, as Amazon's own programs read them."""
CHUNK = 1 << 24
CONNECT_S, REQUEST_S = 5, 60
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 20.0
PATIENCE_S = 900.0
"""How long work under way waits for a store that does not answer; half of what workers wait for
each other."""
patience_s: ContextVar[float] = ContextVar("patience_s", default=PATIENCE_S)
REFUSALS = {
    r"NO_SUCH_BUCKET|NoSuchBucket|bucket does not exist": (
        "there is no such bucket; make it, or name another"
    ),
    r"ACCESS_DENIED|AccessDenied|HTTP status 403|PERMISSION_DENIED|Permission denied": (
        "these credentials may not do that; give them leave to list, read, write and delete there"
    ),
    r"INVALID_ACCESS_KEY|InvalidAccessKey|SIGNATURE_DOES_NOT_MATCH|SignatureDoesNotMatch"
    r"|INVALID_CLIENT_TOKEN|UNRECOGNIZED_CLIENT|EXPIRED_TOKEN|ExpiredToken|UNAUTHENTICATED"
    r"|HTTP status 401|No credentials|Could not create .*[Cc]redential": (
        "there are no valid credentials: give every node a role, or the files or variables that "
        "the provider's own programs read (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "~/.aws/credentials; GOOGLE_APPLICATION_CREDENTIALS)"
    ),
    r"PERMANENT_REDIRECT|PermanentRedirect|HTTP status 301|HTTP status 307": (
        "the bucket is in another region; name it: ?region=..., or AWS_REGION"
    ),
}
"""What a store says that asking again does not change, and the way out."""


class StorageError(UserError):
    """A store that refuses, or has not answered for too long."""


@dataclass(frozen=True)
class Location:
    """A place in a bucket."""

    scheme: str
    place: str
    """The bucket and, after a slash, what is in it."""
    query: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}" + (f"?{self.query}" if self.query else "")

    def __truediv__(self, name: str) -> "Location":
        return replace(self, place=f"{self.place}/{name}")

    @property
    def name(self) -> str:
        return self.place.rpartition("/")[2]

    @property
    def parent(self) -> "Location":
        return replace(self, place=self.place.rpartition("/")[0])


def is_url(reference: str) -> bool:
    """Return whether a reference names a place in a bucket; also one that a Path has squeezed."""
    return URL.fullmatch(reference) is not None


def parse_url(reference: str) -> Location:
    """Parse a bucket's URL; refuse one without a bucket, with credentials, or unknown options."""
    found = URL.fullmatch(reference)
    if not found:
        raise UserError(f"{reference} is no URL of a bucket, such as s3://bucket/runs")
    scheme, query = found["scheme"], found["query"] or ""
    parts = found["place"].strip("/").split("/")
    if not parts[0] or "" in parts or {".", ".."} & set(parts):
        raise UserError(f"{reference}: a bucket's URL is {scheme}://bucket/folder, without . or ..")
    if "@" in parts[0] or ":" in parts[0]:
        raise UserError(
            f"{scheme}://{parts[0].rpartition('@')[2]}: no credentials in a URL, which recipes and "
            "logs would show; use a role, or the provider's files or variables"
        )
    known = OPTIONS[scheme]
    if wrong := [name for name, _ in parse_qsl(query, True) if name not in known]:
        raise UserError(
            f"{scheme}://{'/'.join(parts)}: a URL has no option {wrong[0]}; it has "
            f"{', '.join(known)}"
        )
    return Location(scheme, "/".join(parts), query)


@lru_cache(maxsize=16)
def open_filesystem(scheme: str, query: str, bucket: str) -> Any:
    """Open a store; Amazon is asked for the bucket's region where nothing names it."""
    from pyarrow import fs

    options: dict[str, Any] = dict(parse_qsl(query))
    if "anonymous" in options:
        options["anonymous"] = options["anonymous"].lower() in ("1", "true", "yes")
    if scheme == "gs":
        from datetime import timedelta

        return fs.GcsFileSystem(**options, retry_time_limit=timedelta(seconds=CONNECT_S))
    named = next((os.environ[n] for n in S3_ENDPOINTS if os.environ.get(n)), "")
    if named and "endpoint_override" not in options:
        place = urlsplit(named)
        options |= {"scheme": place.scheme or "https", "endpoint_override": place.netloc}
    if not {"region", "endpoint_override"} & set(options) and not (
        os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    ):
        options["region"] = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        **options,
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        allow_delayed_open=True,  # a small object is one request, and there at once or not at all
    )


def filesystem(at: Location) -> Any:
    return open_filesystem(at.scheme, at.query, at.place.partition("/")[0])


@contextmanager
def impatient(seconds: float) -> Iterator[None]:
    """Have the calls inside wait for so long, and no longer, for a store that does not answer."""
    before = patience_s.set(seconds)
    try:
        yield
    finally:
        patience_s.reset(before)


def ask(at: Location, call: Callable[[Any], Answer]) -> Answer:
    """Call with the location's filesystem, again and again while the store does not answer.

    Raises:
        FileNotFoundError: there is no such object.
        StorageError: the store refuses, or has not answered for `patience_s`.
    """
    begun, wait_s, told = time.monotonic(), FIRST_WAIT_S, False
    while True:
        try:
            answer = call(filesystem(at))
            if told:
                print(f"{at} answers again, after {time.monotonic() - begun:.0f} s", flush=True)
            return answer
        except FileNotFoundError:
            raise
        except (OSError, RuntimeError) as error:  # pyarrow's errors are of these
            said = " ".join(str(error).split())[:300]
            refused = next((way for what, way in REFUSALS.items() if re.search(what, said)), None)
            if refused:
                raise StorageError(f"{at}: {refused}. The store said: {said}") from error
            waited_s = time.monotonic() - begun
            if waited_s + wait_s > patience_s.get():
                raise StorageError(
                    f"{at} did not answer for {waited_s:.0f} s: {said}. Check the URL, its "
                    "endpoint and the network, and run the same command again"
                ) from error
            if not told and waited_s > 2:
                told = True
                print(f"{at} does not answer, trying again: {said}", flush=True)
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def read_hashed(source: Any, take: Callable[[bytes], object] = lambda data: None) -> Checksum:
    """Read a stream to its end, give each piece to `take`, and return bytes and hash of all."""
    digest, count = xxhash.xxh3_128(), 0
    while data := source.read(CHUNK):
        digest.update(data)
        count += len(data)
        take(data)
    return count, digest.hexdigest()


def upload(file: Path, at: Location) -> Checksum:
    """Write a file to the store; return what was written, which is all that there was of it."""

    def call(store: Any) -> Checksum:
        with file.open("rb") as source, store.open_output_stream(at.place) as out:
            return read_hashed(source, out.write)

    return ask(at, call)


def download(at: Location, file: Path) -> Checksum:
    """Write an object's content to a file beside which nobody else writes."""

    def call(store: Any) -> Checksum:
        with store.open_input_stream(at.place) as source, file.open("wb") as out:
            return read_hashed(source, out.write)

    return ask(at, call)


def write_object(at: Location, content: bytes) -> None:
    def call(store: Any) -> None:
        with store.open_output_stream(at.place) as out:
            out.write(content)

    ask(at, call)


def read_object(at: Location) -> bytes | None:
    """Return an object's content; none where there is no such object."""

    def call(store: Any) -> bytes:
        with store.open_input_stream(at.place) as source:
            return source.read()

    try:
        return ask(at, call)
    except FileNotFoundError:
        return None


def copy_object(source: Location, target: Location) -> None:
    """Copy an object inside the store."""
    ask(target, lambda store: store.copy_file(source.place, target.place))


def remove_object(at: Location) -> None:
    """Remove an object, if it is there."""
    try:
        ask(at, lambda store: store.delete_file(at.place))
    except FileNotFoundError:
        return


def stat_object(at: Location) -> tuple[int, float] | None:
    """Return size and time of an object; none where there is no such object."""
    from pyarrow import fs

    info = ask(at, lambda store: store.get_file_info(at.place))
    return size_and_time(info) if info.type == fs.FileType.File else None


def size_and_time(info: Any) -> tuple[int, float]:
    return info.size, info.mtime_ns / 1e9 if info.mtime_ns else 0.0


def list_objects(at: Location) -> dict[str, tuple[int, float]]:
    """Return size and time of every object below a location, by its name from there."""
    from pyarrow import fs

    selector = fs.FileSelector(at.place, recursive=True, allow_not_found=True)
    found = ask(at, lambda store: store.get_file_info(selector))
    skip = len(at.place) + 1
    return {
        info.path[skip:]: size_and_time(info) for info in found if info.type == fs.FileType.File
    }
