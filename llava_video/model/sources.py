"""A checkpoint's name → the folders it consists of: its own, its base's and its vision tower's.

    whole      every weight of the language model and the projector
    adapter    a LoRA folder: changes of a base, and the projector trained with them
    projector  mm_projector.bin alone, over a base
    delta      differences to a base: the weight of its last norm is near 0

What a folder lacks is looked for by the name it gives: as a path, beside the folder, on the hub.
Decided by the files and tensors that are there, never by a flag; by the name where there are none.
Imports no torch itself.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from llava_video.errors import CheckpointError
from llava_video.model.final_norm import final_norm_size
from llava_video.model.hub import resolve_checkpoint
from llava_video.model.json_fields import read_json_object
from llava_video.model.members import MEMBER_KEY
from llava_video.model.packaged import DEMO_MODEL
from llava_video.model.shards import has_weights, read_header, weight_paths

Kind = Literal["whole", "adapter", "projector", "delta"]
Files = Literal["all", "config"]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
BESIDE_ADAPTER = "non_lora_trainables.bin"
PROJECTOR_FILE = "mm_projector.bin"

# The mean size of the numbers of the last norm's weight: 0.013 in a published delta, of order 1 in
# a whole model. Halfway, as factors go; a folder that is called a delta may be a larger one.
_MOST_DELTA_NORM, _MOST_NAMED_NORM = 0.1, 0.5

_log = logging.getLogger(__name__)

_TOKENIZERS = ("tokenizer.json", "tokenizer.model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The folders of one checkpoint.

    Attributes:
        kind: what its own folder holds.
        folder: its own.
        base: what an adapter, a projector or a delta is over; None for a whole checkpoint.
        tower: where the vision tower's weights are; None when one of the other folders holds them,
            or when weights were not asked for.
        is_merged: whether an adapter's changes are added to its base's weights as they are read;
            else those of the decoder's layers stand beside them.
    """

    kind: Kind
    folder: Path
    base: Path | None = None
    tower: Path | None = None
    is_merged: bool = True

    @property
    def config_folder(self) -> Path:
        """Where config.json is."""
        return self._holding("config.json")

    @property
    def generation_folder(self) -> Path:
        """Where generation_config.json is, if anywhere."""
        return self._holding("generation_config.json")

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer is: an overlay without its own has its base's."""
        return self._holding(*_TOKENIZERS)

    @property
    def has_own_files(self) -> bool:
        """Whether an adapter's weights are here yet."""
        return any((self.folder / name).is_file() for name in ADAPTER_FILES)

    def own_files(self) -> tuple[Path, ...]:
        """List the weight files of the checkpoint's own folder.

        Raises:
            CheckpointError: they are not all there.
        """
        if self.kind == "adapter":
            return (_adapter_file(self.folder), *_if_there(self.folder / BESIDE_ADAPTER))
        if self.kind == "projector":
            path = self.folder / PROJECTOR_FILE
            if not path.is_file():
                raise CheckpointError(
                    f"{self.folder} holds no {PROJECTOR_FILE}.", "fetch the whole checkpoint."
                )
            return (path,)
        return weight_paths(self.folder)

    def weight_files(self) -> tuple[Path, ...]:
        """List every weight file that takes part: what tells two checkpoints apart.

        Raises:
            CheckpointError: they are not all there.
        """
        others = [folder for folder in (self.base, self.tower) if folder is not None]
        return (*self.own_files(), *(path for one in others for path in weight_paths(one)))

    def _holding(self, *names: str) -> Path:
        """Return the first folder with one of these files; the own one when none has."""
        for folder in (self.folder, self.base):
            if folder is not None and any((folder / name).is_file() for name in names):
                return folder
        return self.folder


def find_sources(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    base: str | Path | None = None,
    vision_tower: str | Path | None = None,
    adapter: str | Path | None = None,
    files: Files = "all",
) -> Sources:
    """Find the folders of a checkpoint, and fetch those that are not here.

    Args:
        name_or_path: a folder, a hub id or "demo".
        revision: of the hub id.
        base: a folder or hub id that the checkpoint is over; None for the one it names itself.
        vision_tower: a folder or hub id with the tower of a checkpoint that holds none; None for
            the one its configuration names. A tower in the checkpoint keeps its weights: the given
            one then only says its sizes.
        adapter: a folder or hub id of a LoRA adapter over `name_or_path`, which is its base
            whatever it names itself.
        files: "config" leaves all weights where they are, and the tower out.

    Raises:
        CheckpointError: one of them cannot be found, or is given and not needed.
    """
    folder = resolve_checkpoint(name_or_path, revision=revision, files=files)
    if adapter is None:
        kind = _kind_of(folder, os.fspath(name_or_path))
        sources = Sources(kind=kind, folder=folder, base=_base_of(kind, folder, base, files))
    else:
        sources = _over(folder, name_or_path, adapter, base)
    if vision_tower is not None and "text_config" in _config_of(sources.config_folder):
        raise CheckpointError(
            f"vision_tower = {os.fspath(vision_tower)!r} was given, but {folder} is in "
            "transformers' layout, which holds its tower and says its sizes.",
            "leave vision_tower= out.",
        )
    if files == "config":
        return sources
    return replace(sources, tower=_tower_of(sources, vision_tower))


def find_local(folder: Path, name: str | Path) -> Path | None:
    """Return the checkpoint that another one's files name, where it is on this machine.

    Args:
        folder: the other one's, beside which it may lie.
        name: a path, or a hub id that a folder beside `folder` is named by, whole or its last part.
    """
    beside = folder.resolve().parent
    for candidate in (Path(name).expanduser(), beside / name, beside / Path(name).name):
        if str(name) and (candidate / "config.json").is_file():
            return candidate
    return None


def look_up(folder: Path, name: str | Path, *, what: str, keyword: str, files: Files) -> Path:
    """Return the checkpoint that another one's files name, fetched where it is not here.

    Args:
        folder: the other one's.
        name: as `find_local`.
        what: it is, in the error's words.
        keyword: by which another can be named.
        files: as `find_sources`.

    Raises:
        CheckpointError: it is nowhere; the places are named.
    """
    local = None if name == DEMO_MODEL else find_local(folder, name)
    if local is not None:
        return local
    try:
        return resolve_checkpoint(name, files=files)
    except CheckpointError as cause:
        raise CheckpointError(
            f"{folder} needs the {what} {os.fspath(name)!r}: it is no folder here, none in "
            f"{folder.resolve().parent}, and does not come from the hub: {cause.message}",
            f"pass {keyword}= with a folder or hub id of it, or put it into a folder of that name "
            "beside the checkpoint.",
        ) from cause


def name_of(folder: Path) -> str:
    """Return a folder's name; the hub's cache calls a snapshot by its commit."""
    parts = folder.absolute().parts
    is_snapshot = len(parts) > 2 and parts[-2] == "snapshots"
    return parts[-3].rpartition("--")[2] if is_snapshot else parts[-1]


def _over(folder: Path, name: str | Path, adapter: str | Path, base: str | Path | None) -> Sources:
    """Return the folders of an adapter over a model; it is small, so it is fetched whole."""
    if base is not None:
        raise CheckpointError(
            f"base = {os.fspath(base)!r} and adapter = {os.fspath(adapter)!r} were both given.",
            "with adapter=, the model that is named first is the base; merge an overlay with its "
            "own base first, by `llava-video convert --base`.",
        )
    own = resolve_checkpoint(adapter, files="all")
    if not (own / ADAPTER_CONFIG).is_file():
        raise CheckpointError(
            f"{own} is no adapter: it holds no {ADAPTER_CONFIG}.",
            "name the folder that PEFT or LLaVA's LoRA training wrote; anything else over a base "
            "is named as the model, with base=.",
        )
    _check_whole(folder, name, own)
    return Sources(kind="adapter", folder=own, base=folder)


def _kind_of(folder: Path, name: str) -> Kind:
    if (folder / ADAPTER_CONFIG).is_file():
        return "adapter"
    if not has_weights(folder) and _is_projector(folder):
        return "projector"
    # This library writes its key into whole checkpoints only.
    is_named_so = _sounds_like_delta(folder, name) and MEMBER_KEY not in _config_of(folder)
    size = final_norm_size(folder)
    if size is None:  # the weights are not here, and a name is all there is
        return "delta" if is_named_so else "whole"
    return "delta" if size < (_MOST_NAMED_NORM if is_named_so else _MOST_DELTA_NORM) else "whole"


def _sounds_like_delta(folder: Path, name: str) -> bool:
    """Whether a checkpoint is called a delta; the name of merged weights often keeps the word."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    words = f"{last} {name_of(folder)}".lower()
    return "delta" in words and "merge" not in words


def _is_projector(folder: Path) -> bool:
    # Before weights are fetched, a folder that trained the projector and has no tokenizer.
    is_bare = not any((folder / name).is_file() for name in _TOKENIZERS)
    trains = _config_of(folder).get("tune_mm_mlp_adapter") is True
    return (folder / PROJECTOR_FILE).is_file() or (is_bare and trains)


def _base_of(kind: Kind, folder: Path, given: str | Path | None, files: Files) -> Path | None:
    if kind == "whole":
        if given is not None:
            named_so = "delta" in name_of(folder).lower()
            whole = ", whatever its name says: its weights are whole" if named_so else ""
            raise CheckpointError(
                f"base = {os.fspath(given)!r} was given, but {folder} is no adapter, projector or "
                f"delta{whole}. It needs none.",
                "leave base= out.",
            )
        return None
    named = given or _named_base(kind, folder)
    if not named:
        words = _WORDS[kind]
        if kind == "delta" and final_norm_size(folder) is not None:
            words = "the differences to another model (a delta): its last norm is near 0"
        raise CheckpointError(
            f"{folder} holds {words}, which is nothing without the model it is over.",
            f"pass base= with {_BASES[kind]}; they are put together while they load, or once and "
            "for all by `llava-video convert --base`.",
        )
    found = look_up(folder, named, what="base model", keyword="base", files=files)
    _check_whole(found, named, folder)
    return found


def _check_whole(base: Path, name: str | Path, overlay: Path) -> None:
    if _kind_of(base, os.fspath(name)) != "whole":
        raise CheckpointError(
            f"the base {base} of {overlay} is itself an adapter, a projector or a delta.",
            "name a base that holds all its weights; `llava-video convert` makes one of several.",
        )


_WORDS = {
    "adapter": "a LoRA adapter",
    "projector": "a projector alone",
    "delta": "the differences to another model (a delta), by its name",
}
_BASES = {
    "adapter": "the folder or hub id it was trained over",
    "projector": "the folder or hub id it was trained over",
    "delta": "the folder or hub id of the weights they are added to (LLaMA of the same size)",
}


def _named_base(kind: Kind, folder: Path) -> str | None:
    """Return the base a folder names; a delta's configuration names what it was made from."""
    named: Any = None
    if kind == "adapter":
        named = read_json_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    elif kind == "projector":
        named = _config_of(folder).get("_name_or_path")
    return named if isinstance(named, str) else None


def _tower_of(sources: Sources, given: str | Path | None) -> Path | None:
    names = (name for path in sources.weight_files() for name in read_header(path).shapes)
    if any("vision_tower." in name for name in names):
        if given is not None:
            _log.warning(
                "%s holds its own tower, trained with it: of vision_tower=%r only the sizes are "
                "taken, no weight.",
                sources.folder,
                os.fspath(given),
            )
        return None
    config = _config_of(sources.config_folder)
    named = given or config.get("mm_vision_tower") or config.get("vision_tower")
    if not isinstance(named, str | Path):
        return None  # the missing tensors will be named
    return look_up(sources.folder, named, what="vision tower", keyword="vision_tower", files="all")


def _adapter_file(folder: Path) -> Path:
    for name in ADAPTER_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder} has {ADAPTER_CONFIG}, but neither {' nor '.join(ADAPTER_FILES)}.",
        "fetch the whole adapter.",
    )


def _if_there(path: Path) -> tuple[Path, ...]:
    return (path,) if path.is_file() else ()


def _config_of(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    return read_json_object(path) if path.is_file() else {}
