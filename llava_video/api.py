"""The library's front door: a video and a question → an answer. The data path is spelled out here.

    open    address → source → decoder with its PTS index      inputs.py, video/
    plan    index, context, prompt → frames, grid, tokens      preview.py, planning/
    run     frames → tiles → vision tower → projector → pool → newline → splice → decoder
                                                               exchange.py, model/, engine/
    tell    tokens → text, with what was seen and how long it took

Every stage after the plan is an iterator that the engine pulls, so nothing of a video but its cache
is ever held whole. Knows no file format, no tensor and no template.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, Unpack

from llava_video.asking import ask_shared
from llava_video.engine.request import Engine
from llava_video.engine.settings import EngineSettings
from llava_video.errors import ConfigError, LlavaVideoError
from llava_video.exchange import Exchange, open_exchange
from llava_video.fitting import weights_words
from llava_video.inputs import reopen
from llava_video.judging import Ask, Preference, Verdict, compare_answers, judge_answer
from llava_video.model.spec import ModelSpec
from llava_video.options import Options, Settings, Time, answer_settings, of_answer, settings_of
from llava_video.planning.settings import MemorySettings
from llava_video.preview import DEFAULT_MODEL, Prompt, Quantize, check_planned_for
from llava_video.running import OnEvent, Stream, answer_one, answers_in_order, exchanges_of
from llava_video.seen import SeenVisuals
from llava_video.session import Session, load_session
from llava_video.timeline import WINDOW_PROMPT, Patience, Timeline, ask_timeline, cut_parts
from llava_video.values import Description, Plan


class LlavaVideo:
    """A loaded model; made by `load`. Every verb may be called from several threads at once.

    Args:
        spec: the checkpoint's facts; `.card` is what its makers say it knows, None where nothing.
        engine: what answers requests: the scheduler over the weights, the oracle, or a server.
        on_event: called with every `Progress`, `TextPiece` and result, from the calling thread.
    """

    def __init__(self, spec: ModelSpec, engine: Engine, *, on_event: OnEvent | None = None) -> None:
        self.spec = spec
        self.card = spec.card
        self.engine = engine
        self.on_event = on_event
        self._seen = SeenVisuals()

    def __repr__(self) -> str:
        context = f"context={self.spec.geometry.context_tokens} tokens"
        return f"LlavaVideo({self.spec.name!r}, {context}, {weights_words(self.spec)})"

    def plan(self, video: Any, prompt: Prompt = None, **options: Unpack[Options]) -> Plan:
        """Say what would be done: frames, tokens, memory and the reasons, before any work.

        Args and errors: as `plan_video`.
        """
        with open_exchange(self.spec, video, prompt, settings_of(options)) as exchange:
            return exchange.plan

    def run(self, plan: Plan, *, video: Any = None, **options: Unpack[Options]) -> Description:
        """Do exactly what a plan says.

        Args:
            plan: from `plan`, or read back from JSON.
            video: the visuals, where the plan's names are not addresses (bytes, arrays).
            **options: how to answer (`temperature`, `seed`, `stop`, …); which frames and how many
                tokens are the plan's.

        Raises:
            ConfigError: the video is not the one planned, or an option would change the plan.
            DecodeError: a planned frame cannot be decoded.
        """
        check_planned_for(self.spec, plan)
        settings = answer_settings(plan, options)
        opened = reopen(plan, video, *settings.reading)
        with Exchange(self.spec, plan, opened, settings, seen=self._seen) as exchange:
            return self._answer(exchange)

    def describe(
        self, video: Any, prompt: Prompt = None, **options: Unpack[Options]
    ) -> Description:
        """Describe a video, a picture, or several in one prompt.

        Args:
            video: path, URL, bytes, file object, (frames (T, H, W, 3) uint8, times_s), `Video`,
                `Picture`, or a list of `Video` and `Picture`; None for text alone.
            prompt: the question, or a conversation (`Turn`s); None asks for a description.
            **options: see `Options`.

        Raises:
            SourceError, DecodeError: the video cannot be read.
            BudgetError: nothing fits; the message has the numbers and a way out.
            ConfigError: an option is out of range. TypeError: an option is unknown.
            CapacityError: there is no memory for it now.
        """
        with self._open(video, prompt, settings_of(options)) as exchange:
            return self._answer(exchange)

    def ask(self, video: Any, question: Prompt, **options: Unpack[Options]) -> Description:
        """Ask one question of a video; as `describe`, with the question required."""
        if not question or not str(question).strip():
            raise ConfigError("the question is empty.", "ask something, or use describe().")
        return self.describe(video, question, **options)

    def ask_many(
        self, video: Any, questions: Sequence[str], **options: Unpack[Options]
    ) -> list[Description]:
        """Ask several questions of one video: it is decoded, encoded and prefilled once.

        All share the plan made for the longest question. Answers come in the order of questions. A
        model that fuses a video with the question (LLaVA-Mini) sees it anew for each.

        Raises:
            ConfigError: no question. Otherwise as `describe`; the first error ends the call.
        """
        return self._asking(video, options)(questions)

    def judge(
        self,
        video: Any,
        question: str,
        answer: str,
        *,
        scale: int = 100,
        **options: Unpack[Options],
    ) -> Verdict:
        """Score an answer about a video or a picture, with reasons, by LLaVA-Critic's prompt.

        Args:
            video: as `describe`.
            question: what had been asked.
            answer: what is judged.
            scale: the best score; the prompt was trained with 100.
            **options: see `Options`; the longest text is the card's, 4096 tokens where they fit.

        Raises:
            ConfigError: no question, or no such scale. Otherwise as `describe`.
        """
        return judge_answer(self.spec, self._asking(video, options), question, answer, scale)

    def compare(
        self, video: Any, question: str, answers: Sequence[str], **options: Unpack[Options]
    ) -> Preference:
        """Say which answer about a video or a picture is best, by LLaVA-Critic's prompt.

        Every two are compared in both orders: K (K - 1) questions about the same visuals.

        Args and errors: as `judge`, with two answers or more.
        """
        return compare_answers(self.spec, self._asking(video, options), question, answers)

    def stream(self, video: Any, prompt: Prompt = None, **options: Unpack[Options]) -> Stream:
        """Answer in pieces of text as they come; `.description` of the stream has the rest."""
        exchange = self._open(video, prompt, settings_of(options))
        return Stream(self.engine, exchange, self.on_event)

    def chat(self, video: Any = None, **options: Unpack[Options]) -> Session:
        """Begin a conversation; a turn goes on with the last one's cache, where it is not fused."""
        settings = settings_of(options)
        return Session(self.spec, self.engine, video, settings, self.on_event, self._seen)

    def resume(self, path: str | Path, *, video: Any = None, **options: Unpack[Options]) -> Session:
        """Go on with a conversation that `Session.save` wrote: nothing of it is computed again.

        A model that fuses a video with the question (LLaVA-Mini) looks at it again.

        Args:
            path: the file.
            video: the visuals, where the plan's names are not addresses (bytes, arrays).
            **options: how to answer; which frames and how many tokens are the saved plan's.

        Raises:
            CheckpointError: the file is damaged, or of another model. CapacityError: no room.
        """
        return load_session(self.spec, self.engine, path, video, options, self.on_event, self._seen)

    def batch(
        self,
        requests: Iterable[Any],
        prompt: Prompt = None,
        *,
        on_error: Literal["raise", "return"] = "raise",
        **options: Unpack[Options],
    ) -> Iterator[Description | LlavaVideoError]:
        """Answer many requests, several at once; yields in input order.

        Args:
            requests: videos as in `describe`, or mappings {"video": …, "prompt": …, option: …}
                whose own keys win over the call's. Drawn only as there is room.
            prompt: for requests without their own.
            on_error: "raise" the first error, or "return" it in its place and go on.
            **options: for requests without their own.
        """
        if on_error not in ("raise", "return"):
            raise ConfigError(f"on_error = {on_error!r}.", "allowed: 'raise', 'return'.")
        settings_of(options)  # a mistyped option is told here, not at the first answer
        exchanges = exchanges_of(requests, {"prompt": prompt, **options}, self._open)
        return answers_in_order(self.engine, exchanges, on_error, self.on_event)

    def timeline(
        self,
        video: Any,
        prompt: str | None = None,
        *,
        window_s: Time = 30.0,
        overlap_s: Time = 0.0,
        summary: bool = True,
        patience: Patience | None = None,
        **options: Unpack[Options],
    ) -> Timeline:
        """Caption a video of any length window by window, and merge the captions.

        Args:
            video: as `describe`, one video.
            prompt: asked of every window; None asks for a description.
            window_s: length of a window, s, or as `start`.
            overlap_s: what neighbours share, s; less than `window_s`.
            summary: whether to merge the captions into one text.
            patience: when to ask again about windows that failed; None never does.
            **options: for every window; `start` and `end` bound the whole.
        """
        cut, parts = cut_parts(video, settings_of(options), window_s, overlap_s)
        words = prompt or (self.card.describe if self.card else "") or WINDOW_PROMPT
        ask = partial(self.batch, prompt=words, on_error="return", **options)
        merge = partial(self.describe, None, **of_answer(options))  # of captions, no pixels
        return ask_timeline(cut, parts, ask, merge if summary else None, patience)

    def close(self) -> None:
        """Free the model's memory; the object is of no use afterwards."""
        getattr(self.engine, "close", lambda: None)()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _open(
        self, video: Any, prompt: Prompt, settings: Settings, *, request_id: int = 0
    ) -> Exchange:
        return open_exchange(
            self.spec, video, prompt, settings, request_id=request_id, seen=self._seen
        )

    def _asking(self, video: Any, options: Options) -> Ask:
        return partial(
            ask_shared,
            self.spec,
            self.engine,
            video,
            options=options,
            seen=self._seen,
            on_event=self.on_event,
        )

    def _answer(self, exchange: Exchange) -> Description:
        answer = answer_one(self.engine, exchange, on_event=self.on_event)
        return exchange.description(answer)


def load(
    name_or_path: str | Path = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attn: Literal["sdpa", "flash"] = "sdpa",
    memory: str | int | None = None,
    quantize: Quantize = "auto",
    rope: Literal["exact", "compat"] | None = None,
    base: str | Path | None = None,
    vision_tower: str | Path | None = None,
    adapter: str | Path | None = None,
    merge_adapter: bool | None = None,
    template: str | None = None,
    engine: EngineSettings | None = None,
    on_event: OnEvent | None = None,
    on_shard: Callable[[int, int], None] | None = None,
) -> LlavaVideo:
    """Load a checkpoint.

    Args:
        name_or_path: a folder, a hub id such as "lmms-lab/LLaVA-Video-7B-Qwen2", or "demo": the
            small model that the package carries, which knows a small made-up world alone.
        revision: hub revision.
        device: "auto" (every GPU there is, else the CPU), "cpu", "cuda", "cuda:1", ….
        dtype: "auto" (bfloat16 on a GPU, float32 on a CPU), "float32", "bfloat16" or "float16".
        attn: "sdpa", or "flash" for the flash-attn package.
        memory: most of weights, cache, activations and workspace together, "24GiB" or bytes, which
            every plan keeps to; None is what the GPU has free, and no limit on a CPU.
        quantize: how the decoder's linear weights are kept: "auto" is the finest of "plain", "int8"
            and "int4" that leaves memory for the whole context as int8 cache; None is "plain".
        rope: angles of positions, "exact" or the reference's ("compat"); None is the engine's.
        base: what an adapter, a projector or a delta is over: a folder or hub id; None, its own.
        vision_tower: of a checkpoint that holds none: a folder or hub id; None, the one it names.
        adapter: a folder or hub id of a LoRA adapter over the checkpoint, LLaVA's or PEFT's own.
        merge_adapter: whether it is added to the weights; None does so to plain ones, and keeps it
            beside quantised ones.
        template: the conversation's template, "vicuna_v1" or another; None is the checkpoint's own.
        engine: chunk sizes and limits of the engine; None for its defaults.
        on_event: called with every engine event of every request.
        on_shard: called with (shards loaded, shards in all).

    Raises:
        CheckpointError: not found, incomplete, or of a kind this library does not read.
        BudgetError: the weights do not fit the memory; none was read.
        BackendMissingError: attn="flash" without flash-attn.
        ConfigError: an unknown device, dtype or template, or no amount of memory.
    """
    from llava_video.loading import load_engine, load_spec  # torch; asking a server does without

    asked = MemorySettings(memory=memory, quantize=quantize)
    if rope is not None:
        engine = replace(engine or EngineSettings(), rope=rope)
    spec = load_spec(
        name_or_path,
        revision=revision,
        device=device,
        dtype=dtype,
        base=base,
        vision_tower=vision_tower,
        adapter=adapter,
        merge_adapter=merge_adapter,
        template=template,
        memory=asked,
        settings=engine,
    )
    loaded = load_engine(
        spec, device=device, dtype=dtype, attn=attn, on_shard=on_shard, settings=engine
    )
    return LlavaVideo(spec, loaded, on_event=on_event)


def describe_video(
    video: Any,
    prompt: Prompt = None,
    *,
    model: str | Path | LlavaVideo = DEFAULT_MODEL,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attn: Literal["sdpa", "flash"] = "sdpa",
    memory: str | int | None = None,
    quantize: Quantize = "auto",
    base: str | Path | None = None,
    vision_tower: str | Path | None = None,
    adapter: str | Path | None = None,
    merge_adapter: bool | None = None,
    template: str | None = None,
    **options: Unpack[Options],
) -> Description:
    """Describe one video in one call.

    The model is loaded and freed again; for several videos, `load` once and call its verbs. `video`
    and `prompt` are those of `LlavaVideo.describe`; `model` is a folder, a hub id, "demo",
    or a loaded model; what follows up to `template` is as in `load`, and the rest are `Options`.

    Raises:
        LlavaVideoError: one of its kinds, as `load` and `LlavaVideo.describe`.
        TypeError: an option is unknown.
    """
    settings_of(options)  # a mistyped option is told before gigabytes are loaded
    if isinstance(model, LlavaVideo):
        overlays = (base, vision_tower, adapter, merge_adapter, template)
        given = (revision, device, dtype, attn, memory, quantize, *overlays)
        if given != (None, "auto", "auto", "sdpa", None, "auto", *[None] * len(overlays)):
            raise ConfigError(
                "device, dtype, memory and the like are settled when a model is loaded.",
                "give them to load(), or name the model instead of passing it loaded.",
            )
        return model.describe(video, prompt, **options)
    with load(
        model,
        revision=revision,
        device=device,
        dtype=dtype,
        attn=attn,
        memory=memory,
        quantize=quantize,
        base=base,
        vision_tower=vision_tower,
        adapter=adapter,
        merge_adapter=merge_adapter,
        template=template,
    ) as loaded:
        return loaded.describe(video, prompt, **options)
