"""transformers' LlavaOnevision on a seeded tiny model → a folder in the golden format.

What proves parity where the reference's own outputs are not at hand. Pixels come from transformers'
PIL processors, features, sequences and tokens from its model; only layouts that its class does not
have (slow-fast, one padded picture beside a video) are put together here, from its features, by the
published layout.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer as BaseTokenizer

from llava_video.model.tiny import byte_tokenizer

# An odd side, so that rounding up and rounding down differ.
TILE_PX, PATCH_PX, SIDE = 70, 14, 5
NUM_TOKENS = 12
SEED = 39
# By part of the name, the first that fits: features and embeddings near one, sharp attention.
GAINS = {"embed_tokens": 25.0, "lm_head": 6.0, "language_model": 5.0, "": 2.0}
PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)


def make_set(folder: Path) -> None:
    """Write `tiny_hf/` and the cases of a set."""
    reference = Reference(SEED)
    reference.save(folder / "tiny_hf")
    cases = folder / "cases"
    cases.mkdir()
    with torch.inference_mode(), warnings.catch_warnings():
        # That a penalty without prompt ids counts new tokens only is just what is wanted.
        warnings.filterwarnings("ignore", message="Passing `repetition_penalty`")
        for name, make in CASES.items():
            np.savez(cases / f"{name}.npz", **make(reference))


class Reference:
    """transformers' model, its processors and a byte tokenizer."""

    def __init__(self, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import transformers
            from transformers.models.llava_onevision import (
                image_processing_pil_llava_onevision as anyres,
            )
            from transformers.models.siglip import image_processing_pil_siglip as siglip
        transformers.logging.set_verbosity_error()
        half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        size = {"height": TILE_PX, "width": TILE_PX}
        self.canvases = [[TILE_PX * a, TILE_PX * b] for a in (1, 2, 3) for b in (1, 2, 3)]
        self.pictures = anyres.LlavaOnevisionImageProcessorPil(
            size=size, image_grid_pinpoints=self.canvases, do_pad=False, **half
        )
        self.frames = siglip.SiglipImageProcessorPil(
            size=size, resample=transformers.image_utils.PILImageResampling.BICUBIC, **half
        )
        self.model = self._model(transformers, seed)
        self.newline = self.model.model.image_newline
        self.tokenizer: BaseTokenizer = byte_tokenizer()

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder, max_shard_size="60KB")
        self.tokenizer.save(str(folder / "tokenizer.json"))

    def ids(self, prompt: str) -> list[int]:
        """Return ids with -200 at every mark, every piece between tokenised alone."""
        ids: list[int] = []
        for idx, piece in enumerate(prompt.split("<image>")):
            ids += [-200] * bool(idx) + self.tokenizer.encode(piece, add_special_tokens=False).ids
        return ids

    def video_pixels(self, frames: np.ndarray) -> torch.Tensor:
        done = self.frames(images=list(frames), return_tensors="pt", input_data_format=LAST)
        return done["pixel_values"]

    def picture_pixels(self, pictures: list[np.ndarray]) -> list[torch.Tensor]:
        """Return tiles per picture: one picture is tiled, several are padded to squares."""
        done = self.pictures(images=[pictures], input_data_format=LAST)
        return [torch.from_numpy(np.asarray(tiles)) for tiles in done["pixel_values"]]

    def projected(self, pixels: torch.Tensor) -> torch.Tensor:
        inner = self.model.model
        hidden = inner.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
        return inner.multi_modal_projector(hidden)

    def picture_rows(self, pictures: list[np.ndarray]) -> list[torch.Tensor]:
        tiles = self.picture_pixels(pictures)
        sizes = torch.tensor([picture.shape[:2] for picture in pictures])
        counts = torch.tensor([len(pictures)])
        found = self.model.model.get_image_features(
            torch.cat(tiles), sizes, batch_num_images=counts, vision_aspect_ratio="anyres_max_9"
        )
        return list(found.pooler_output)

    def video_rows(self, frames: np.ndarray) -> torch.Tensor:
        return self.model.model.get_video_features(self.video_pixels(frames)[None]).pooler_output[0]

    def embeddings(self, ids: list[int], visuals: list[torch.Tensor]) -> torch.Tensor:
        """Return (L, D): embedding rows, with each visual's rows at its mark."""
        embed, left = self.model.get_input_embeddings(), iter(visuals)
        pieces = [next(left) if i == -200 else embed(torch.tensor([i])) for i in ids]
        return torch.cat(pieces)

    def of_sample(
        self, prompt: str, visuals: list[torch.Tensor], penalty: float | None = None
    ) -> dict[str, np.ndarray]:
        """Return what a set stores of one prompt: its logits and its greedy answers."""
        rows = self.embeddings(self.ids(prompt), visuals)
        logits = self.model(inputs_embeds=rows[None]).logits[0]
        tokens, margins = self._greedy(rows)
        stored = {
            **_logits(logits),
            "seq_len": np.int64(len(rows)),
            "greedy_tokens": tokens,
            "greedy_margin": margins,
        }
        if penalty is not None:
            tokens, margins = self._greedy(rows, repetition_penalty=penalty)
            stored |= {
                "greedy_tokens_rep_penalty": tokens,
                "greedy_margin_rep_penalty": margins,
                "repetition_penalty": np.float64(penalty),
            }
        return stored

    def _greedy(self, rows: torch.Tensor, **options: float) -> tuple[np.ndarray, np.ndarray]:
        """Continue embeddings: the processors then see new tokens only, as in the reference."""
        found = self.model.generate(
            inputs_embeds=rows[None],
            max_new_tokens=NUM_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
        top = torch.cat(found.scores).topk(2).values
        margins = (top[:, 0] - top[:, 1]).numpy()
        # A near tie would make "identical" a matter of luck: another SEED has none.
        assert margins.min() > 1e-2
        return found.sequences[0].numpy(), margins

    def _model(self, transformers, seed: int):
        config = transformers.LlavaOnevisionConfig(
            text_config={
                "model_type": "qwen2",
                "hidden_size": 48,
                "intermediate_size": 96,
                "num_hidden_layers": 3,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "vocab_size": 264,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            },
            vision_config={
                "model_type": "siglip_vision_model",
                "hidden_size": 40,
                "intermediate_size": 72,
                "num_hidden_layers": 2,
                "num_attention_heads": 5,
                "image_size": TILE_PX,
                "patch_size": PATCH_PX,
                "vision_use_head": False,
            },
            image_grid_pinpoints=self.canvases,
            image_token_index=262,
            video_token_index=263,
            tie_word_embeddings=False,
        )
        torch.manual_seed(seed)
        model = transformers.LlavaOnevisionForConditionalGeneration(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1:  # away from the almost linear model of the usual draw
                    parameter.mul_(next(gain for part, gain in GAINS.items() if part in name))
                if "norm" in name and name.endswith("weight"):
                    parameter.add_(0.2 * torch.randn(parameter.shape))
        return model


def _video_one_token(reference: Reference) -> dict[str, np.ndarray]:
    frames = _noise(1, 3, 90, 130)
    rows, pixels = reference.video_rows(frames), reference.video_pixels(frames)
    features = reference.projected(pixels)
    stored = _of_one(reference, "<image>\nWhat happens?", [rows], ["video"], penalty=1.4)
    return stored | {
        "frames": frames,
        "config_overrides": _text({"mm_newline_position": "one_token"}),
        "projected_frame0": features[0].numpy(),
        "projected_row_mean": features.mean(dim=-1).flatten().numpy(),
        "pooled": _pooled(features, 2).numpy(),
        **_pixels(pixels),
    }


def _video_slow_fast(reference: Reference) -> dict[str, np.ndarray]:
    """Every second frame is slow: 3 x 3 rows with newlines; the others 2 x 2; all end alike."""
    frames, every = _noise(2, 5, 70, 50), 2
    features = reference.projected(reference.video_pixels(frames))
    separator = torch.randn(features.shape[2], generator=torch.Generator().manual_seed(1))
    pieces = []
    for idx, frame in enumerate(features):
        side, stride = (3, 2) if idx % every == 0 else (2, 4)
        pooled = _pooled(frame[None], stride)[0].unflatten(0, (side, side))
        newlines = reference.newline.expand(side, 1, -1)
        pieces += [torch.cat([pooled, newlines], dim=1).flatten(0, 1), separator[None]]
    stored = _of_one(reference, "<image>\nFast or slow?", [torch.cat(pieces)], ["video"])
    return stored | {
        "frames": frames,
        "faster_token": separator.numpy(),
        "config_overrides": _text(
            {
                "mm_newline_position": "grid",
                "add_faster_video": True,
                "faster_token_stride": every,
            }
        ),
        "pooled_slow": _pooled(features[::2], 2).numpy(),
        "pooled_fast": _pooled(features[1::2], 4).numpy(),
    }


def _image_anyres(reference: Reference) -> dict[str, np.ndarray]:
    picture = _noise(3, 100, 72)
    rows = reference.picture_rows([picture])
    stored = _of_one(reference, "Look: <image>\nWhat is it?", rows, ["image"])
    stored |= _pixels(reference.picture_pixels([picture])[0])
    return stored | {"image_0": picture, "image_sizes_wh": np.array([[72, 100]])}


def _images_pad(reference: Reference) -> dict[str, np.ndarray]:
    pictures = [_noise(4, 60, 90), _noise(5, 80, 41)]
    rows = reference.picture_rows(pictures)
    stored = _of_one(reference, "<image> or <image>?", rows, ["image", "image"])
    stored |= _pixels(torch.cat(reference.picture_pixels(pictures)))
    sizes = np.array([picture.shape[1::-1] for picture in pictures])
    overrides = _text({"image_aspect_ratio": "pad"})
    images = {f"image_{idx}": picture for idx, picture in enumerate(pictures)}
    return stored | images | {"image_sizes_wh": sizes, "config_overrides": overrides}


def _text_only(reference: Reference) -> dict[str, np.ndarray]:
    stored = _of_one(reference, "Hello there.", [], [], penalty=1.3)
    ids = reference.ids(PROMPT.format("Hello there."))
    return stored | {"inputs_embeds": reference.embeddings(ids, []).numpy()[None]}


def _mixed_left(reference: Reference) -> dict[str, np.ndarray]:
    """Two prompts padded on the left: a padded picture and a video in one, a video in the other."""
    picture, frames = _noise(6, 50, 77), [_noise(7, 2, 60, 60), _noise(8, 1, 44, 99)]
    padded = reference.picture_rows([picture, picture])[0]  # two, so that they are padded
    videos = [reference.video_rows(one) for one in frames]
    prompts = [PROMPT.format(t) for t in ("<image> then <image>\nCompare them.", "<image>\nWhat?")]
    visuals = [[padded, videos[0]], [videos[1]]]
    stored: dict[str, np.ndarray] = {}
    for idx, (prompt, rows) in enumerate(zip(prompts, visuals, strict=True)):
        own = reference.of_sample(prompt, rows)
        stored |= {f"{key}_{idx}": value for key, value in own.items()}
    ids = [reference.ids(prompt) for prompt in prompts]
    embeddings = [reference.embeddings(i, rows) for i, rows in zip(ids, visuals, strict=True)]
    width = max(map(len, embeddings))
    batch = torch.stack([F.pad(rows, (0, 0, width - len(rows), 0)) for rows in embeddings])
    masks = [np.arange(width) >= width - len(rows) for rows in embeddings]
    width_in = max(map(len, ids))
    return stored | {
        "batch_prompts": np.array(prompts),
        "batch_input_ids": np.array([[256] * (width_in - len(i)) + i for i in ids]),
        "attention_mask_in": np.array([np.arange(width_in) >= width_in - len(i) for i in ids]),
        "attention_mask_out": np.array(masks),
        "inputs_embeds": batch.numpy(),
        "inputs_embeds_shape": np.array(batch.shape),
        "modalities": _text(["image", "video", "video"]),
        "image_sizes_wh": np.array([[77, 50], [60, 60], [99, 44]]),
        "config_overrides": _text({"image_aspect_ratio": "pad", "tokenizer_padding_side": "left"}),
        "image_0": picture,
        "frames_1": frames[0],
        "frames_2": frames[1],
    }


def _of_one(
    reference: Reference,
    question: str,
    visuals: list[torch.Tensor],
    kinds: list[str],
    penalty: float | None = None,
) -> dict[str, np.ndarray]:
    """Return what a set stores of a case of one prompt."""
    prompt = PROMPT.format(question)
    ids = reference.ids(prompt)
    lengths = iter([len(rows) for rows in visuals])
    ends = np.cumsum([next(lengths) if i == -200 else 1 for i in ids])
    counts = np.array([len(rows) for rows in visuals], dtype=np.int64)
    starts = np.array([end for end, i in zip(ends, ids, strict=True) if i == -200]) - counts
    stored = {
        "prompt": np.array(prompt),
        "input_ids": np.array([ids]),
        "modalities": _text(kinds),
        "feature_counts": counts,
        "feature_starts": starts.astype(np.int64),
        **reference.of_sample(prompt, visuals, penalty),
    }
    return stored | ({"spliced": torch.cat(visuals).numpy()} if visuals else {})


def _logits(logits: torch.Tensor) -> dict[str, np.ndarray]:
    top = logits.topk(2).values
    stored = {
        "logits_all": logits,
        "logits_last": logits[-1],
        "logits_argmax": logits.argmax(-1),
        "logits_max": top[:, 0],
        "logits_margin": top[:, 0] - top[:, 1],
        "logits_logsumexp": logits.logsumexp(-1),
    }
    return {key: value.numpy() for key, value in stored.items()}


def _pixels(pixels: torch.Tensor) -> dict[str, np.ndarray]:
    step = 8 if len(pixels) <= 6 else 16
    planes = pixels.numpy().astype(np.float64)
    return {
        "pixel_sub": pixels.numpy()[:, :, 3::step, 5::step],
        "pixel_sum": planes.sum(axis=(2, 3)),
        "pixel_sqsum": (planes**2).sum(axis=(2, 3)),
    }


def _pooled(features: torch.Tensor, stride: int) -> torch.Tensor:
    maps = features.transpose(1, 2).unflatten(2, (SIDE, SIDE))
    return F.interpolate(maps, size=-(-SIDE // stride), mode="bilinear").flatten(2).transpose(1, 2)


def _noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def _text(value: object) -> np.ndarray:
    return np.array(json.dumps(value))


LAST = "channels_last"
CASES = {
    "video_one_token": _video_one_token,
    "video_slow_fast": _video_slow_fast,
    "image_anyres": _image_anyres,
    "images_pad": _images_pad,
    "text_only": _text_only,
    "mixed_left": _mixed_left,
}
