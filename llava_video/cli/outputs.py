"""Answers → files in a folder: one per input, whole or not at all, never over somebody's else.

Knows no model and no command.
"""

import hashlib
import os
import urllib.parse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava_video.cli.answers import text_of
from llava_video.cli.inputs import is_url
from llava_video.errors import ConfigError
from llava_video.files import replacing
from llava_video.values import Description

_SHEET_SUFFIX = ".jpg"
_LONGEST_NAME = 150  # bytes; file systems stop at 255 and a suffix follows


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFolder:
    """Where the answers of one run go.

    Attributes:
        folder: the folder, made when the first answer is there.
        suffix: ".txt" or ".json".
        has_sheets: whether the frames the model saw are written too.
        names: input as typed → name of its files without suffix.
    """

    folder: Path
    suffix: str
    has_sheets: bool
    names: Mapping[str, str]

    def check(self, *, overwrite: bool) -> None:
        """Check that the answers can be written, before there are any.

        Raises:
            ConfigError: the folder cannot be made or written, or an answer would replace a file.
        """
        folders = (self.folder, *self.folder.absolute().parents)
        nearest = next(folder for folder in folders if folder.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            what = "may not be written to" if nearest.is_dir() else "is a file"
            raise ConfigError(f"-o {self.folder}: {nearest} {what}.", "name another folder.")
        if not overwrite:
            self._refuse_existing()

    def _refuse_existing(self) -> None:
        existing = [path for file in self.names for path in self._paths(file) if path.exists()]
        if existing:
            more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
            raise ConfigError(
                f"{existing[0]}{more} would be replaced.",
                "--overwrite replaces; another -o keeps both.",
            )

    def write(self, file: str, description: Description) -> Path:
        """Write an answer, and the sheet of its frames; return the answer's path.

        The answer comes last: where it stands, all that belongs to it does.

        Raises:
            OSError: the folder cannot be made or written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path, *sheets = self._paths(file)
        for sheet in sheets if description.thumbnails is not None else ():
            description.contact_sheet(sheet)  # itself whole or not at all
        is_json = self.suffix == ".json"
        text = description.to_json() + "\n" if is_json else text_of(description)
        with replacing(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
        return path

    def _paths(self, file: str) -> list[Path]:
        suffixes = [self.suffix, _SHEET_SUFFIX] if self.has_sheets else [self.suffix]
        return [self.folder / (self.names[file] + suffix) for suffix in suffixes]


def output_folder(
    files: Sequence[str], folder: str | Path, *, suffix: str, has_sheets: bool
) -> OutputFolder:
    """Give every input the name of its files.

    A name is the input's without its suffix. Inputs that would share one, `a/x.mp4` and `b/x.mkv`,
    have eight digits of the hash of their whole path added, which do not depend on the others.
    """
    stems = {file: _stem(file) for file in files}
    shared = Counter(stem.casefold() for stem in stems.values())  # some file systems fold case
    names = {
        file: stem if shared[stem.casefold()] == 1 else f"{stem}-{_digest(file)}"
        for file, stem in stems.items()
    }
    return OutputFolder(folder=Path(folder), suffix=suffix, has_sheets=has_sheets, names=names)


def _stem(file: str) -> str:
    name = file
    if is_url(file):
        name = "" if file.startswith("data:") else urllib.parse.urlsplit(file).path
    stem = Path(name).stem.encode(errors="replace")[:_LONGEST_NAME].decode(errors="ignore")
    return stem or "video"


def _digest(file: str) -> str:
    whole = file if is_url(file) else os.path.realpath(file)
    return hashlib.sha256(whole.encode(errors="surrogateescape")).hexdigest()[:8]
