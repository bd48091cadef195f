"""transformers' llava, llava_next and llava_next_video on seeded tiny models → a golden folder.

Every seed draws its own shapes, backbone, positions and picture sizes. A model is written as
`save_pretrained` writes it, and in the spellings of older files. Pixels come from transformers' PIL
processors, logits and tokens from its models.
"""

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from llava_video.model.tiny import byte_tokenizer

KINDS = ("llava", "llava_next", "llava_next_video")
CLASSES = {
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
    "llava_next_video": "LlavaNextVideoForConditionalGeneration",
}
VOCAB, IMAGE_ID, VIDEO_ID = 280, 270, 271
NUM_TOKENS = 8
# A near tie would make "the same tokens" a matter of luck; logits agree a hundred times closer.
LEAST_MARGIN = 2e-3
# By part of the name, the first that fits: features and embeddings near one, sharp attention.
GAINS = {"embed_tokens": 25.0, "lm_head": 6.0, "language_model": 5.0, "": 2.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def make_family_set(folder: Path, kind: str, seeds: range) -> None:
    """Write, for each seed, a model in every spelling, and the same case for each."""
    cases, facts = folder / "cases", {}
    cases.mkdir(parents=True)
    for seed in seeds:
        twin = Twin(kind, seed)
        twin.save(folder / f"seed{seed}")
        with torch.inference_mode():
            stored, overrides = twin.case()
        for ending, spell in SPELLINGS.items():
            name = f"seed{seed}{ending}"
            if spell:
                spell(folder / f"seed{seed}", folder / name)
            np.savez(cases / f"{name}.npz", **stored)
            facts[name] = {"checkpoint": name, "overrides": overrides}
    (folder / "cases.json").write_text(json.dumps(facts), encoding="utf-8")


class Twin:
    """One model of transformers with its processors, of shapes drawn from a seed."""

    def __init__(self, kind: str, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import transformers
        transformers.logging.set_verbosity_error()
        self.kind, self.seed = kind, seed
        self.draw = np.random.default_rng([KINDS.index(kind), seed])
        self.transformers = transformers
        self.config = self._config()
        torch.manual_seed(1000 * KINDS.index(kind) + seed)
        self.model = getattr(transformers, CLASSES[kind])(self.config).eval()
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if parameter.ndim > 1:  # away from the almost linear model of the usual draw
                    parameter.mul_(next(gain for part, gain in GAINS.items() if part in name))
                if "norm" in name and name.endswith("weight"):
                    parameter.add_(0.2 * torch.randn(parameter.shape))
        self.tokenizer = byte_tokenizer()

    def save(self, folder: Path) -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            self.model.save_pretrained(folder, max_shard_size="80KB")
        self.tokenizer.save(str(folder / "tokenizer.json"))

    def case(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Draw pictures and prompts until no greedy step is a near tie.

        Returns:
            What is stored of it, and the keys of config.json that differ for it.
        """
        while True:
            stored, overrides = self._case()
            if stored["greedy_margin"].min() > LEAST_MARGIN:
                return stored, overrides

    def _case(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        kinds = ["image"] * int(self.draw.integers(1, 3))
        pad = self.kind == "llava" and bool(self.draw.integers(0, 2))
        if self.kind == "llava_next_video":
            kinds = [["video"], ["video", "image"], ["image", "video"]][self.draw.integers(0, 3)]
        pixels = [self._noise(kind) for kind in kinds]
        visuals = [self._rows_of(frames, pad) for frames in pixels]
        prompt = "".join(f"{self._words()}<image>" for _ in kinds) + self._words()
        ids = self._ids(prompt)
        given, inputs = self._given(ids, kinds, visuals)
        labels = np.array(ids)
        labels[: len(ids) // 2] = -100
        labels[labels < 0] = -100
        seen = self._seen(given, inputs, torch.tensor(_spread(labels, ids, visuals)))
        tokens, margins = self._greedy(given, inputs)
        tiles = np.concatenate([visual[0].reshape(-1, *visual[0].shape[-3:]) for visual in visuals])
        overrides = {}
        if self.kind == "llava":
            overrides = {"image_aspect_ratio": "pad" if pad else "square"}
        stored: dict[str, Any] = {
            "prompt": prompt,
            "modalities": json.dumps(kinds),
            "input_ids": np.array(ids),
            "pixel_values": tiles,
            "seq_len": np.int64(given.shape[1]),
            "image_token_count": np.array([count for _, _, count in visuals]),
            "labels": labels,
            **seen,
            "greedy_ids": tokens,
            "greedy_margin": margins,
        }
        for idx, (kind, frames) in enumerate(zip(kinds, pixels, strict=True)):
            stored[f"frames_{idx}" if kind == "video" else f"image_{idx}"] = frames
        return {key: np.asarray(value) for key, value in stored.items()}, overrides

    def _seen(
        self, given: torch.Tensor, inputs: dict, labels: torch.Tensor
    ) -> dict[str, np.ndarray]:
        """Run the model once; return what goes through its parts, by the keys of a set."""
        inner, seen = self.model.model, {}

        def projected(_module: object, rows: tuple, output: torch.Tensor) -> None:
            if self.kind != "llava_next_video":  # there pooled features of videos come first
                seen["clip_features"] = rows[0].flatten(0, 1)
                seen["projected_first64"] = output.flatten(0, 1)[:64]

        def embedded(_module: object, _rows: tuple, options: dict) -> None:
            rows = options["inputs_embeds"][0]
            is_visual = (given[0] == IMAGE_ID) | (given[0] == VIDEO_ID)
            seen["inputs_embeds"] = rows
            seen["embeds_position_mean"] = rows.mean(-1)
            seen["image_tokens_first8"] = rows[is_visual][:8]
            seen["image_tokens_mean"] = rows[is_visual].mean(-1)

        hooks = (
            inner.multi_modal_projector.register_forward_hook(projected),
            inner.language_model.register_forward_pre_hook(embedded, with_kwargs=True),
        )
        found = self.model(input_ids=given, labels=labels[None], **inputs)
        for hook in hooks:
            hook.remove()
        seen |= {"logits": found.logits[0], "loss": found.loss}
        return {key: value.numpy() for key, value in seen.items()}

    def _given(
        self, ids: list[int], kinds: list[str], visuals: list[tuple[np.ndarray, Any, int]]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return ids with as many placeholders as there are rows, and the pixels."""
        left = iter(zip(kinds, visuals, strict=True))
        given: list[int] = []
        for token_id in ids:
            if token_id != -200:
                given.append(token_id)
                continue
            kind, (_, _, count) = next(left)
            given += [VIDEO_ID if kind == "video" else IMAGE_ID] * count
        pictures = [v for kind, v in zip(kinds, visuals, strict=True) if kind == "image"]
        videos = [v for kind, v in zip(kinds, visuals, strict=True) if kind == "video"]
        inputs: dict[str, torch.Tensor] = {}
        if pictures:
            tiles = [torch.from_numpy(tiles) for tiles, _, _ in pictures]
            inputs["pixel_values"] = torch.cat(tiles)
            if self.kind != "llava":
                inputs["image_sizes"] = torch.tensor([size for _, size, _ in pictures])
        if videos:
            inputs["pixel_values_videos"] = torch.from_numpy(videos[0][0])[None]
        return torch.tensor(given)[None], inputs

    def _rows_of(self, frames: np.ndarray, pad: bool) -> tuple[np.ndarray, tuple[int, int], int]:
        """Return a visual's tiles, its (height, width), and how many rows it becomes."""
        px = self.config.vision_config.image_size
        side = px // self.config.vision_config.patch_size
        crop = {"size": {"shortest_edge": px}, "crop_size": {"height": px, "width": px}}
        options = {"input_data_format": "channels_last"}
        if frames.ndim == 4 or self.kind == "llava":
            squares = self._processor("llava", **crop, do_pad=pad)
            pictures = list(frames) if frames.ndim == 4 else [frames]
            tiles = np.stack(squares(pictures, **options)["pixel_values"])
            stride = self.config.spatial_pool_stride if frames.ndim == 4 else 1
            return tiles, frames.shape[-3:-1], len(tiles) * (side // stride) ** 2
        canvases = self.config.image_grid_pinpoints
        tiled = self._processor("llava_next", **crop, image_grid_pinpoints=canvases)
        tiles = np.asarray(tiled([frames], **options)["pixel_values"][0])
        features = torch.zeros(1, len(tiles), side**2, 1)
        _, counts = self.model.model.pack_image_features(
            list(features), [frames.shape[:2]], "default", torch.zeros(1)
        )
        return tiles, frames.shape[:2], int(counts[0])

    def _processor(self, kind: str, **options: Any) -> Any:
        module = f"transformers.models.{kind}.image_processing_pil_{kind}"
        name = {"llava": "LlavaImageProcessorPil", "llava_next": "LlavaNextImageProcessorPil"}
        return getattr(__import__(module, fromlist=["_"]), name[kind])(**options)

    def _greedy(self, given: torch.Tensor, inputs: dict) -> tuple[np.ndarray, np.ndarray]:
        found = self.model.generate(
            input_ids=given,
            max_new_tokens=NUM_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
            **inputs,
        )
        top = torch.cat(found.scores).topk(2).values
        return found.sequences[0, given.shape[1] :].numpy(), (top[:, 0] - top[:, 1]).numpy()

    def _ids(self, prompt: str) -> list[int]:
        """Return ids with -200 at every mark, every piece between tokenised alone."""
        ids: list[int] = []
        for idx, piece in enumerate(prompt.split("<image>")):
            ids += [-200] * bool(idx) + self.tokenizer.encode(piece, add_special_tokens=False).ids
        return ids

    def _words(self) -> str:
        return "".join(chr(code) for code in self.draw.integers(97, 123, self.draw.integers(3, 12)))

    def _noise(self, kind: str) -> np.ndarray:
        """Draw a picture, or a video's frames, of a size at which both roundings agree."""
        px = self.config.vision_config.image_size
        while True:
            height, width = (int(n) for n in self.draw.integers(px // 3, 4 * px, 2))
            if kind == "video" or self.kind == "llava" or self._agrees(height, width):
                break
        frames = (int(self.draw.integers(1, 5)),) if kind == "video" else ()
        return self.draw.integers(0, 256, (*frames, height, width, 3), dtype=np.uint8)

    def _agrees(self, height: int, width: int) -> bool:
        """Say whether int(round(x, 7)), as here, is int(x), as the original code has it."""
        px = self.config.vision_config.image_size
        side = px // self.config.vision_config.patch_size
        for canvas_height, canvas_width in self.config.image_grid_pinpoints:
            rows, cols = canvas_height // px * side, canvas_width // px * side
            for kept in (height * (cols / width), width * (rows / height)):
                if int(kept) != int(round(kept, 7)) or kept < 1:
                    return False
        return True

    def _config(self) -> Any:
        draw = self.draw
        heads = int(draw.choice([4, 6, 8]))
        kv_heads = heads if self.seed % 2 else heads // 2
        head_dim = int(draw.choice([4, 8, 12]))
        backbone = ("llama", "mistral", "qwen2")[self.seed % 3]
        rope = [
            {"rope_type": "default"},
            {"rope_type": "linear", "factor": float(draw.choice([2.0, 2.5, 4.0]))},
            LLAMA3,
        ][(self.seed // 3 + KINDS.index(self.kind)) % 3]
        text = {
            "model_type": backbone,
            "hidden_size": heads * head_dim,
            "intermediate_size": int(draw.integers(40, 120)),
            "num_hidden_layers": int(draw.integers(1, 4)),
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": VOCAB,
            "rms_norm_eps": float(draw.choice([1e-5, 1e-6])),
            "max_position_embeddings": 4096,
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "eos_token_id": 1,
            "rope_parameters": {**rope, "rope_theta": float(draw.choice([1e4, 5e5, 1e6]))},
        }
        if backbone == "mistral":
            text["sliding_window"] = None
        tower_heads, patch = int(draw.choice([2, 3, 4])), int(draw.choice([4, 6, 7]))
        side = int(draw.integers(3, 7))
        vision = {
            "model_type": "clip_vision_model",
            "hidden_size": tower_heads * int(draw.choice([8, 12])),
            "intermediate_size": int(draw.integers(30, 80)),
            "num_hidden_layers": int(draw.integers(2, 5)),
            "num_attention_heads": tower_heads,
            "image_size": side * patch,
            "patch_size": patch,
            "projection_dim": 16,
            "hidden_act": "quick_gelu",
        }
        px = side * patch
        options: dict[str, Any] = {"image_token_index": IMAGE_ID, "image_seq_length": side**2}
        if self.kind != "llava":
            grids = [(1, 2), (2, 1), (2, 2), (1, 3), (3, 1)]
            options["image_grid_pinpoints"] = [[a * px, b * px] for a, b in grids]
        if self.kind == "llava_next_video":
            options |= {
                "video_token_index": VIDEO_ID,
                "spatial_pool_mode": ("average", "max")[self.seed % 2],
                "spatial_pool_stride": 2,
            }
        name = CLASSES[self.kind].replace("ForConditionalGeneration", "Config")
        return getattr(self.transformers, name)(
            text_config=text, vision_config=vision, tie_word_embeddings=False, **options
        )


def _spread(labels: np.ndarray, ids: list[int], visuals: list[tuple]) -> list[int]:
    """Return the labels of every position; none of visual tokens."""
    counts = iter(count for _, _, count in visuals)
    spread: list[int] = []
    for token_id, label in zip(ids, labels.tolist(), strict=True):
        spread += [label] * (next(counts) if token_id == -200 else 1)
    return spread


def write_old_spelling(saved: Path, folder: Path) -> None:
    """Write a saved model again as the llava-hf repositories have it: other names, other keys."""
    tensors = {
        name.replace("vision_tower.", "vision_tower.vision_model."): tensor
        for name, tensor in _tensors(saved).items()
    }
    # Buffers that old files bring along, and that nothing reads.
    tensors["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    tensors["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    values = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    text = values["text_config"]
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    # Each repository was written by the transformers of its day.
    text["rope_scaling"] = {
        "default": None,
        "linear": {"type": "linear", **rope},
        "llama3": {"rope_type": "llama3", **rope},
    }[kind]
    for part in (values, text, values["vision_config"]):
        part.pop("dtype", None)
    values["torch_dtype"] = text["torch_dtype"] = "float32"
    values["ignore_index"] = -100
    _write(folder, tensors, values, saved)


def write_memory_spelling(saved: Path, folder: Path) -> None:
    """Write a saved model under the names that transformers 4.52 has in memory."""
    tensors = {}
    for name, tensor in _tensors(saved).items():
        name = name.replace("vision_tower.", "model.vision_tower.vision_model.")
        name = name.replace("language_model.model.", "model.language_model.")
        name = name.replace("language_model.lm_head.", "lm_head.")
        if name.startswith(("multi_modal_projector.", "image_newline")):
            name = f"model.{name}"
        tensors[name] = tensor
    values = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    _write(folder, tensors, values, saved)


def _tensors(saved: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(saved.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def _write(folder: Path, tensors: dict, values: dict, saved: Path) -> None:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    (folder / "tokenizer.json").write_bytes((saved / "tokenizer.json").read_bytes())


# How a folder's name ends → what writes it; None for what `save_pretrained` writes.
SPELLINGS = {"": None, "_old": write_old_spelling, "_memory": write_memory_spelling}
