"""A language model built by hand that can look things up, and haystacks to look in.

Random weights attend to everything alike, and an answer hardly changes when a span of the cache is
missing, moved or scaled. This model answers one kind of question: somewhere stands a key followed
by its value, at the end stands the key again, and the next token is the value. It is an induction
head in two layers of the library's own decoder:

1. A head whose query and key are constants looks one token back: the query is the key turned by one
   position, so with frequencies w_j the score at distance n is sum_j cos(w_j (n - 1) / scale). It
   writes the code of the token before into channels of its own. It is built for one position scale.
2. A head compares the last token's code with those codes, in the slow frequencies that turn by less
   than 0.3 rad in 4,000 tokens, and copies the code of the token it finds to the channels that the
   head of the model reads.

Codes are words of +1 and -1, no two of which agree in more than 70 % of their places; besides,
every haystack holds decoys: keys that agree with the true one in 80 %, before values of their own.
A logit is the share of the attention that fell on its token, plus what the codes have in common:
1.0 for the value in the ideal case, at most 0.4 for every other token.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from llava_video.model.dimensions import ModelDimensions, TextConfig, VisionConfig
from llava_video.model.llava import LlavaModel
from llava_video.values import Clip, Grid, Newline, VisualPlan

CODE_CHANNELS = 40
HEAD_DIM = 128
NUM_WORDS = 160
MOST_AGREEING = 0.4  # correlation: agree in 70 % of the places
DECOY_AGREEING = 0.6
# The answer's logit less the next best one's: 0.6 in the ideal case, and found means half of that.
FOUND_MARGIN = 0.3
# Pairs of channels: fast ones tell neighbours apart, slow ones hardly turn.
_FAST_PAIRS = 16
_FIRST_SLOW_PAIR = (HEAD_DIM - CODE_CHANNELS) // 2
# Nats between the token before and its neighbours, and between a found key and none.
_NEIGHBOUR_GAP = 8.0
_MATCH_SCORE = 60.0

TEXT = TextConfig(
    hidden_size=128,
    intermediate_size=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=HEAD_DIM,
    vocab_size=NUM_WORDS + 2,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    max_positions=4096,
    tie_embeddings=False,
)
_VISION = VisionConfig(
    hidden_size=8, intermediate_size=8, num_layers=1, num_heads=2, image_px=28, patch_px=14
)


@dataclasses.dataclass(frozen=True)
class Haystack:
    """Tokens, and what is planted in them.

    Attributes:
        ids: the tokens, without a question.
        needles: key id -> value id.
        places: key id -> index of the key.
    """

    ids: tuple[int, ...]
    needles: dict[int, int]
    places: dict[int, int]


class RetrievalModel(LlavaModel):
    """The model; of a video it reads tokens, not pictures: a frame's first pixels are its ids."""

    def visual_rows(
        self, plan: VisualPlan, clips: Iterable[Clip], tile_chunk: int
    ) -> Iterator[torch.Tensor]:
        """Yield the embeddings of the ids that each frame shows."""
        del tile_chunk
        tokens_per_frame = plan.map_size[0] * plan.map_size[1]
        for clip in clips:
            for frame in clip.frames:
                ids = torch.from_numpy(frame[..., 0].reshape(-1)[:tokens_per_frame].copy())
                yield self.language_model.embed(ids.long())


def retrieval_model(
    position_scale: float = 1.0, *, dtype: torch.dtype = torch.float32, rope_scale: float = 1.0
) -> RetrievalModel:
    """Build the model.

    Args:
        position_scale: what it is built for; positions are index / position_scale.
        dtype: of the weights.
        rope_scale: the scale that the configuration itself states, on top of the other.
    """
    text = dataclasses.replace(TEXT, rope_scale=rope_scale)
    model = RetrievalModel(ModelDimensions(vision=_VISION, text=text))
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = torch.ones_like(noise) if "norm" in name else noise * 0.1
    language_model = model.language_model
    codes = code_words()
    embeddings = torch.zeros(len(codes), TEXT.hidden_size)
    embeddings[:, :CODE_CHANNELS] = codes
    language_model.embed_tokens.weight.data = embeddings
    for layer in language_model.layers:
        layer.o_proj.weight.data.zero_()
        layer.down_proj.weight.data.zero_()
    _look_back(language_model.layers[0], position_scale * rope_scale)
    _look_up(language_model.layers[1])
    head = torch.zeros(len(codes), TEXT.hidden_size)
    # At the end three of the blocks hold a code each, and the last norm divides by their size.
    head[:, _block(2)] = codes / CODE_CHANNELS * _norm_of(3)
    language_model.lm_head.weight.data = head
    return model.to(dtype).requires_grad_(False).eval()


@functools.cache
def code_words() -> torch.Tensor:
    """Return the codes (NUM_WORDS + 2, CODE_CHANNELS), +1 and -1; the last two are decoy keys."""
    generator = np.random.default_rng(3)
    words: list[np.ndarray] = []
    while len(words) < NUM_WORDS:
        word = generator.choice((-1.0, 1.0), CODE_CHANNELS)
        if all(word @ other <= MOST_AGREEING * CODE_CHANNELS for other in words):
            words.append(word)
    num_flips = round((1 - DECOY_AGREEING) / 2 * CODE_CHANNELS)
    for key in (0, 1):  # the two keys that haystacks plant
        decoy = words[key].copy()
        decoy[generator.choice(CODE_CHANNELS, num_flips, replace=False)] *= -1
        words.append(decoy)
    return torch.tensor(np.array(words), dtype=torch.float32)


def haystack(num_tokens: int, depth: float, seed: int = 0, *, place: int | None = None) -> Haystack:
    """Make distractors with two needles planted: key 0 at a depth, key 1 somewhere else.

    Args:
        num_tokens: in all, at least 16.
        depth: where key 0 stands, 0 the beginning, 1 the end.
        seed: of the distractors, the values and the second needle.
        place: index of key 0, instead of a depth; at least 1.
    """
    generator = np.random.default_rng(seed)
    # Neither keys nor values are among the distractors.
    first_value, second_value = (int(id_) for id_ in generator.choice(np.arange(2, 42), 2, False))
    ids = generator.integers(42, NUM_WORDS, num_tokens)
    decoys = generator.random(num_tokens) < 0.01
    ids[decoys] = generator.integers(NUM_WORDS, NUM_WORDS + 2, decoys.sum())
    # The first token has none before it and takes itself for that: a key there would answer itself.
    first = 1 + round(depth * (num_tokens - 3)) if place is None else place
    others = [idx for idx in range(1, num_tokens - 1) if abs(idx - first) > 1]
    second = int(generator.choice(others))
    ids[[first, first + 1]] = 0, first_value
    ids[[second, second + 1]] = 1, second_value
    return Haystack(
        tuple(int(id_) for id_ in ids), {0: first_value, 1: second_value}, {0: first, 1: second}
    )


def margin_of(logits: torch.Tensor, value: int) -> float:
    """Return the value's logit less the next best one's; below 0 where another token wins."""
    others = logits.clone()
    others[value] = -torch.inf
    return float(logits[value] - others.max())


def is_found(logits: torch.Tensor, value: int) -> bool:
    """Say whether the answer is the value, clearly."""
    return margin_of(logits, value) >= FOUND_MARGIN


def video_of(ids: Sequence[int], tokens_per_frame: int) -> tuple[VisualPlan, Iterator[Clip]]:
    """Return a plan and clips whose frames show these ids, for the model to read."""
    num_frames = len(ids) // tokens_per_frame
    if num_frames * tokens_per_frame != len(ids):
        raise ValueError(f"{len(ids)} ids do not fill frames of {tokens_per_frame}.")
    pixels = np.array(ids, dtype=np.uint8).reshape(num_frames, 1, tokens_per_frame, 1)
    frames = np.broadcast_to(pixels, (num_frames, 1, tokens_per_frame, 3))
    plan = VisualPlan(
        kind="video",
        source="haystack",
        height_px=1,
        width_px=tokens_per_frame,
        times_s=tuple(float(idx) for idx in range(num_frames)),
        frame_idxs=tuple(range(num_frames)),
        fit="squeeze",
        grid=Grid(1, 1),
        overview=False,
        pool_mode="bilinear",
        pool_stride=1,
        newline=Newline.NONE,
        crop=(0, 1, 0, 1),
        map_size=(1, tokens_per_frame),
        num_tokens=len(ids),
    )

    def clips() -> Iterator[Clip]:
        for start in range(0, num_frames, 3):
            piece = frames[start : start + 3]
            idxs = np.arange(start, start + len(piece))
            yield Clip(piece, idxs.astype(np.float64), idxs)

    return plan, clips()


def _look_back(layer: torch.nn.Module, scale: float) -> None:
    """Make query head 0 look one token back and write that token's code into the second block."""
    pairs = torch.arange(_FAST_PAIRS, dtype=torch.float64)
    angles = TEXT.rope_theta ** (-2 * pairs / HEAD_DIM) / scale
    # From the peak to a neighbour the score falls by the gain times this.
    fall = float((1 - angles.cos()).sum())
    gain = (_NEIGHBOUR_GAP / fall * HEAD_DIM**0.5) ** 0.5
    for linear in (layer.q_proj, layer.k_proj):
        linear.weight.data[:HEAD_DIM] = 0
        linear.bias.data[:HEAD_DIM] = 0
    # The rotation by -p pairs j with j + d / 2: the query is the key turned back by one position.
    layer.k_proj.bias.data[:_FAST_PAIRS] = gain
    layer.q_proj.bias.data[:_FAST_PAIRS] = (gain * angles.cos()).float()
    half = HEAD_DIM // 2
    layer.q_proj.bias.data[half : half + _FAST_PAIRS] = (-gain * angles.sin()).float()
    _copy(layer, head=0, kv_head=0, into=1, norm=_norm_of(1))


def _look_up(layer: torch.nn.Module) -> None:
    """Make query head 3 find the code of the last token among those before, and copy what it is."""
    head, kv_head, norm = 3, 1, _norm_of(2)
    gain = (_MATCH_SCORE * HEAD_DIM**0.5 / CODE_CHANNELS) ** 0.5
    half = CODE_CHANNELS // 2
    slow = [_FIRST_SLOW_PAIR + i for i in range(half)]
    slow += [HEAD_DIM // 2 + channel for channel in slow]
    for linear, at, block in ((layer.q_proj, head, 0), (layer.k_proj, kv_head, 1)):
        rows = slice(at * HEAD_DIM, (at + 1) * HEAD_DIM)
        linear.weight.data[rows] = 0
        linear.bias.data[rows] = 0
        start = _block(block).start
        for code_idx, channel in enumerate(slow):
            linear.weight.data[at * HEAD_DIM + channel, start + code_idx] = gain * norm
    _copy(layer, head=head, kv_head=kv_head, into=2, norm=norm)


def _copy(layer: torch.nn.Module, *, head: int, kv_head: int, into: int, norm: float) -> None:
    """Let a head's values be the tokens' own codes, and its output go to a block."""
    rows = slice(kv_head * HEAD_DIM, (kv_head + 1) * HEAD_DIM)
    layer.v_proj.weight.data[rows] = 0
    layer.v_proj.bias.data[rows] = 0
    for idx in range(CODE_CHANNELS):
        layer.v_proj.weight.data[kv_head * HEAD_DIM + idx, idx] = norm
        layer.o_proj.weight.data[_block(into).start + idx, head * HEAD_DIM + idx] = 1.0


def _block(idx: int) -> slice:
    """Return the channels of the token's code, of the code before it, of the answer."""
    return slice(idx * CODE_CHANNELS, (idx + 1) * CODE_CHANNELS)


def _norm_of(num_blocks: int) -> float:
    """Return what an RMS norm divides by when so many blocks hold a code and the rest is 0."""
    return (num_blocks * CODE_CHANNELS / TEXT.hidden_size) ** 0.5
