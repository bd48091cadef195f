"""The visual path: frames in, exactly the planned rows out, in memory that does not grow."""

import dataclasses
import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rows_by_hand import rows_by_hand
from seeded_models import DIMENSIONS, GRID, VISION, clips_of, filled, noise_frames, video_plan
from torch.utils._python_dispatch import TorchDispatchMode

from llava_video.errors import CheckpointError, ConfigError, DecodeError
from llava_video.model import preprocess
from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config, with_overrides
from llava_video.model.preprocess import make_tiles
from llava_video.ops.tile_frames import tile_frames
from llava_video.values import Clip, Newline, VisualPlan


def model_of(**changes: object) -> LlavaModel:
    return filled(LlavaModel(dataclasses.replace(DIMENSIONS, **changes)))


# Rows of a frame: 4 x 5; with a grid 16 of the overview and 4 x 7.
LAYOUTS = [
    ({}, 20),
    ({"newline": Newline.NONE}, 16),
    ({"newline": Newline.FRAME}, 17),
    ({"pool_mode": "average", "map_size": (3, 3)}, 12),
    (GRID, 44),
]


@pytest.mark.parametrize(("layout", "rows_per_frame"), LAYOUTS)
@pytest.mark.parametrize("tile_chunk", [1, 2, 64])
@pytest.mark.parametrize("chunk_frames", [1, 3, 5])
def test_rows_are_those_of_each_frame_alone(
    layout: dict[str, object], rows_per_frame: int, tile_chunk: int, chunk_frames: int
):
    model, frames = model_of(), noise_frames(5)
    plan = video_plan(5, 5 * rows_per_frame, **layout)
    rows = list(model.visual_rows(plan, clips_of(frames, chunk_frames), tile_chunk))
    assert [len(piece) for piece in rows] == [rows_per_frame] * 5
    for idx, (piece, clip) in enumerate(zip(rows, clips_of(frames, 1), strict=True)):
        features = model.encode(make_tiles(clip, plan, tile_px=VISION.image_px))
        alone = rows_by_hand(features, plan, idx, model.image_newline)
        assert (piece - alone).abs().max().item() <= 1e-5


@pytest.mark.parametrize(("layout", "rows_per_frame"), [LAYOUTS[0], LAYOUTS[-1]])
@pytest.mark.parametrize("tile_chunk", [1, 2, 64])
def test_tiles_cut_on_the_device_give_the_same_rows(
    monkeypatch, layout: dict[str, object], rows_per_frame: int, tile_chunk: int
):
    model, plan = model_of().bfloat16(), video_plan(5, 5 * rows_per_frame, **layout)
    cut: list[torch.Tensor] = []

    def noted(frames: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        cut.append(frames)
        return tile_frames(frames, *args, **kwargs)

    def all_rows() -> torch.Tensor:
        return torch.cat(list(model.visual_rows(plan, clips_of(noise_frames(5), 3), tile_chunk)))

    expected = all_rows()
    monkeypatch.setattr(preprocess, "uses_triton", lambda _: True)
    monkeypatch.setattr(preprocess, "tile_frames", noted)
    assert torch.equal(all_rows(), expected)
    assert [frames.shape for frames in cut] == [(1, 40, 60, 3)] * 5


def test_the_clip_newline_comes_once():
    plan = video_plan(3, 3 * 16 + 1, newline=Newline.CLIP)
    model = model_of()
    rows = torch.cat(list(model.visual_rows(plan, clips_of(noise_frames(3)), 2)))
    assert torch.equal(rows[-1], model.image_newline)
    assert not (rows[:-1] == model.image_newline).all(dim=1).any()


def test_slow_fast_frames_end_with_the_separator():
    model = model_of(has_separator=True)
    plan = video_plan(4, 2 * 21 + 2 * 7, slow_every=2, fast_side=2)
    rows = list(model.visual_rows(plan, clips_of(noise_frames(4)), 3))
    assert [len(piece) for piece in rows] == [21, 7, 21, 7]
    assert all(torch.equal(piece[-1], model.separator) for piece in rows)


def test_frames_are_pulled_as_rows_are_taken():
    pulled: list[int] = []

    def watched() -> Iterator[Clip]:
        for idx, clip in enumerate(clips_of(noise_frames(8), 1)):
            pulled.append(idx)
            yield clip

    rows = model_of().visual_rows(video_plan(8, 160), watched(), 2)
    next(rows)
    assert len(pulled) <= 2
    assert len(list(rows)) == 7


def test_inference_mode_does_not_leak_between_rows():
    rows = model_of().visual_rows(video_plan(2, 40), clips_of(noise_frames(2), 1), 1)
    assert next(rows).is_inference()
    assert not torch.is_inference_mode_enabled()


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made inside, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if id(storage) in self._known:
            return
        self._known.add(id(storage))
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, id(storage), storage.nbytes())

    def _forget(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self.now -= num_bytes


def peak_bytes(num_frames: int, *, keep: bool) -> int:
    model, frame = model_of(), noise_frames(1)
    plan = video_plan(num_frames, 20 * num_frames)
    clips = clips_of(np.broadcast_to(frame, (num_frames, *frame.shape[1:])), 8)
    with PeakBytes() as counted:
        rows = model.visual_rows(plan, clips, 2)
        kept = list(rows) if keep else sum(len(piece) for piece in rows)
    assert kept
    return counted.peak


def test_memory_does_not_grow_with_the_frames():
    few, many = peak_bytes(16, keep=False), peak_bytes(128, keep=False)
    assert many <= 1.05 * few
    # Holding the rows is seen by the same measure: 20 rows x 32 channels x 4 bytes a frame.
    assert peak_bytes(128, keep=True) >= few + 100 * 20 * 32 * 4


@pytest.mark.parametrize(
    ("given", "words"), [(2, "4 frames were planned, 2 came"), (6, "at least")]
)
def test_another_number_of_frames_is_an_error(given: int, words: str):
    rows = model_of().visual_rows(video_plan(4, 80), clips_of(noise_frames(given)), 2)
    with pytest.raises(DecodeError, match=words) as raised:
        list(rows)
    assert "plan again" in raised.value.hint


@pytest.mark.parametrize("num_tokens", [79, 81])
def test_rows_that_do_not_add_up_to_the_plan_are_an_error(num_tokens: int):
    rows = model_of().visual_rows(video_plan(4, num_tokens), clips_of(noise_frames(4)), 2)
    with pytest.raises(ConfigError, match=f"{num_tokens} visual tokens were planned"):
        list(rows)


@pytest.mark.parametrize(
    ("changes", "layout", "words"),
    [
        ({"has_newline": False}, {}, "newline"),
        ({}, {"slow_every": 2, "fast_side": 2}, "separator"),
    ],
)
def test_learned_tokens_that_are_missing_are_named_before_any_frame(changes, layout, words: str):
    def no_frames() -> Iterator[Clip]:
        pytest.fail("a frame was asked for")
        yield

    model = model_of(**changes)
    with pytest.raises(CheckpointError, match=words):
        next(model.visual_rows(video_plan(4, 80, **layout), no_frames(), 2))


def test_no_newline_needs_none():
    model = model_of(has_newline=False)
    plan = video_plan(2, 32, newline=Newline.NONE)
    assert len(torch.cat(list(model.visual_rows(plan, clips_of(noise_frames(2)), 2)))) == 32
    assert "image_newline" not in dict(model.named_parameters())


def test_device_and_dtype_are_the_language_models():
    model = model_of().to(torch.bfloat16)
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.bfloat16)
    rows = list(model.visual_rows(video_plan(1, 20), clips_of(noise_frames(1)), 2))
    assert rows[0].dtype is torch.bfloat16


def golden_plans(golden) -> list[tuple[VisualPlan, np.ndarray]]:
    """Write the plan of a golden case by hand, from its pixels and the reference's layouts."""
    overrides = json.loads(str(golden["config_overrides"]))
    if "frames" not in golden:
        pictures = [
            golden[k] for k in sorted(golden) if k.startswith("image_") and golden[k].ndim == 3
        ]
        layout = {"kind": "image", "pool_stride": 1, "fit": "pad", "newline": Newline.CLIP}
        layout |= {"crop": (0, 27, 0, 27), "map_size": (27, 27)}
        if len(pictures) == 1:  # 300 x 200 on one tile: 19 of 27 map rows hold the picture
            layout |= {"fit": "letterbox", "overview": True, "overview_side": 27}
            layout |= {"newline": Newline.ROW, "crop": (4, 23, 0, 27), "map_size": (19, 27)}
        rows = 1261 if len(pictures) == 1 else 730
        return [(video_plan(1, rows, **layout), picture[None]) for picture in pictures]
    newline = {"one_token": Newline.CLIP, "frame": Newline.FRAME}.get(
        overrides.get("mm_newline_position"), Newline.ROW
    )
    mode = overrides.get("mm_spatial_pool_mode", "bilinear")
    side = 14 if mode == "bilinear" else 13
    count = len(golden["frames"])
    layout = {
        "newline": newline,
        "pool_mode": mode,
        "map_size": (side, side),
        "crop": (0, 27, 0, 27),
    }
    extra = {Newline.ROW: count * side, Newline.FRAME: count, Newline.CLIP: 1}[newline]
    return [(video_plan(count, count * side**2 + extra, **layout), golden["frames"])]


@pytest.mark.parametrize(
    "name",
    [
        "image_anyres_small",
        "multi_image_pad",
        "video_frame_average",
        "video_grid_bilinear",
        "video_grid_rope_linear4",
        "video_one_token",
    ],
)
def test_golden_rows(shared: Path, name: str):
    folder = shared / "golden/onevision_video"
    golden = np.load(folder / f"cases/{name}.npz")
    config = read_model_config(folder / "model_a")
    config = with_overrides(config, json.loads(str(golden["config_overrides"])))
    model = load_model(folder / "model_a", config=config, device="cpu", dtype=torch.float32)
    rows = torch.cat(
        [
            row
            for plan, frames in golden_plans(golden)
            for row in model.visual_rows(plan, clips_of(frames, 2), 2)
        ]
    ).numpy()
    if "spliced" in golden:
        assert np.abs(rows - golden["spliced"]).max() <= 1e-4
    else:
        assert np.abs(rows[golden["spliced_row_index"]] - golden["spliced_rows"]).max() <= 1e-4
        assert np.abs(rows.mean(1) - golden["spliced_row_mean"]).max() <= 1e-4
