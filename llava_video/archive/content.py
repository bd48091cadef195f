"""An address → the hash of the bytes there, remembered for as long as the file stays the same.

Whether a file is the same is asked of its size, its inode and its times as they stand, never of
the clock: times are compared for equality alone. Knows no unit.
"""

import hashlib
import os
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llava_video.errors import ChangedFileError, SourceError
from llava_video.video.object_store import SCHEMES, object_version
from llava_video.video.settings import FetchSettings
from llava_video.video.source import open_source

_CHUNK_BYTES = 2**20
_DEFAULT_FETCH = FetchSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStamp:
    """What tells a file from another one, or from itself after a change.

    Attributes:
        path: absolute.
        device: it lies on.
        inode: its number there.
        size_bytes: its length.
        mtime_ns: when its bytes were changed, ns, by the clock of then.
        ctime_ns: when anything of it was changed, its name too.
    """

    path: str
    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: str | Path) -> "FileStamp":
        """Look at a file.

        Raises:
            OSError: it is not there.
        """
        return cls._from(path, os.stat(path))  # noqa: PTH116 - a Path takes longer than the look

    @classmethod
    def of_object(cls, url: str, size_bytes: int, version: str) -> "FileStamp":
        """Return the stamp of an object in a bucket, made of the service's mark of its version."""
        digest = hashlib.sha256(f"{url}\n{version}".encode("utf-8", "surrogateescape")).digest()
        halves = [int.from_bytes(digest[at : at + 8], "big", signed=True) for at in (0, 8)]
        return cls(
            path=url,
            device=0,
            inode=halves[0],
            size_bytes=size_bytes,
            mtime_ns=halves[1],
            ctime_ns=0,
        )

    @classmethod
    def _from(cls, path: str | Path, status: os.stat_result) -> "FileStamp":
        return cls(
            path=os.path.abspath(path),  # noqa: PTH100 - resolving links looks each part up
            # SQLite's integers have a sign; some file systems use all 64 bits.
            device=_signed(status.st_dev),
            inode=_signed(status.st_ino),
            size_bytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
        )


class HashStore(Protocol):
    """Where hashes are remembered; the ledger is one."""

    def known_hash(self, stamp: FileStamp) -> str | None:
        """Return the hash of a file that has not changed since it was kept."""

    def keep_hash(self, stamp: FileStamp, content: str) -> None:
        """Remember the hash of a file as it is."""


def local_path(address: str) -> Path | None:
    """Return the file an address names; None where its bytes have to be fetched."""
    if address[:5].lower() == "data:":
        return None
    scheme, separator, _ = address.partition("://")
    if not separator:
        return Path(address)
    if scheme.lower() != "file":
        return None
    return Path(urllib.request.url2pathname(urllib.parse.urlsplit(address).path))


def content_hash(
    address: str,
    store: HashStore | None = None,
    *,
    fetch_settings: FetchSettings = _DEFAULT_FETCH,
) -> str:
    """Return the sha256 of the bytes at an address, as hex.

    A file is read in pieces. What has to be fetched is fetched for it: an object in a bucket once
    per version, if a store remembers it; what http serves each time, since nothing tells whether it
    is the same.

    Args:
        address: path or URL.
        store: where hashes of files are remembered; None reads every file.
        fetch_settings: whom a download may ask, and its limits.

    Raises:
        ChangedFileError: a file changed while it was read.
        SourceError: it is not there, cannot be read, is empty or a folder.
        BackendMissingError: an s3 or gs address without the package that reads it.
    """
    path = local_path(address)
    if path is None:
        return _hash_fetched(address, store, fetch_settings)
    before = _stamp_now(path)
    known = store.known_hash(before) if store and before else None
    if known is not None:
        return known
    open_source(path)  # one place says what is wrong with a path
    try:
        found, after = _hash_file(path)
    except OSError as cause:
        raise SourceError(f"{str(path)!r} cannot be read: {cause.strerror}.") from cause
    if before != after or after != _stamp_now(path):
        raise ChangedFileError(
            f"{str(path)!r} changed while it was read.", "wait until it is written, then retry."
        )
    if store:
        store.keep_hash(after, found)
    return found


def is_unchanged(address: str, content: str, store: HashStore) -> bool:
    """Say whether a file is still the one whose hash was kept; True of what has to be fetched.

    Asked after a video was decoded: a row about other bytes than its key says must not be kept.

    Args:
        address: path or URL.
        content: the hash it had.
        store: where it was kept.
    """
    path = local_path(address)
    if path is None:
        return True
    now = _stamp_now(path)
    return now is not None and store.known_hash(now) == content


def _hash_fetched(address: str, store: HashStore | None, settings: FetchSettings) -> str:
    stamp = _stamp_of_object(address, settings) if store else None
    known = store.known_hash(stamp) if store and stamp else None
    if known is not None:
        return known
    found = open_source(address, fetch_settings=settings).identity()
    # A version that came while this one was fetched must not lend it its mark.
    if store and stamp and _stamp_of_object(address, settings) == stamp:
        store.keep_hash(stamp, found)
    return found


def _stamp_of_object(address: str, settings: FetchSettings) -> FileStamp | None:
    if address.partition("://")[0].lower() not in SCHEMES:
        return None
    version = object_version(address, settings)
    return None if version is None else FileStamp.of_object(address, *version)


def _hash_file(path: Path) -> tuple[str, FileStamp]:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
        after = FileStamp._from(path, os.fstat(file.fileno()))
    return digest.hexdigest(), after


def _stamp_now(path: Path) -> FileStamp | None:
    try:
        return FileStamp.of(path)
    except OSError:
        return None


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
