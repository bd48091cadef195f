"""One request on its way: waiting, prefilling, then writing token by token or scoring choices.

Asks for memory, brings work to each step, takes the logits back and tells events. Knows no other
request and no thread: the scheduler calls it in its turn.
"""

import itertools
import logging
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llava_video.engine.choices import ChoiceScorer
from llava_video.engine.elements import VisualRun, tokens_of
from llava_video.engine.prefixes import KeptPrefixes
from llava_video.engine.request import (
    Answer,
    Event,
    Failed,
    Finished,
    Progress,
    Request,
    TextPiece,
)
from llava_video.engine.rows import PromptRows, parts_after
from llava_video.engine.sequence import Sequence as KvSequence
from llava_video.engine.settings import GenerationSettings
from llava_video.engine.step import Work
from llava_video.engine.tools import Tools
from llava_video.engine.writer import AnswerWriter
from llava_video.errors import ConfigError
from llava_video.values import FinishReason

logger = logging.getLogger(__name__)


class Job:
    """One request.

    Args:
        request: what is asked.
        tools: the engine's.
        tell: takes the request's events, in order.

    Attributes:
        has_ended: whether its last event was told; nothing is held then.

    Raises:
        ConfigError: the request cannot be answered at all.
    """

    def __init__(self, request: Request, tools: Tools, tell: Callable[[Event], None]) -> None:
        self.request = request
        self.has_ended = False
        self._tools = tools
        self._tell = tell
        before = request.after.elements if request.after else ()
        self._elements = [*before, *request.elements()]
        self._prompt_tokens = tokens_of(self._elements)
        self._choices = [tools.tokenizer.encode(c) for c in request.generation.choices]
        self._writer = tools.writer_of(request.generation)
        self._sequence: KvSequence | None = None
        self._rows: PromptRows | None = None
        self._scorer: ChoiceScorer | None = None
        self._reused_tokens = 0
        self._confidence: float | None = None
        self._frames_told = self._num_told = 0
        self._is_prefilled = False
        self._marks_s = [time.perf_counter()]  # asked, admitted, prefilled
        _check_ids(request.text_ids, tools.model.language_model.config.vocab_size)
        _check_choices(request.generation, self._choices)

    @property
    def prefill_left_tokens(self) -> int:
        """Prompt tokens not computed yet; 0 as long as there is no row of them."""
        return self._rows.num_left if self._rows and not self._rows.is_fusing else 0

    @property
    def is_fused(self) -> bool:
        """Whether its rows are fused, and not all of them read: one request at a time has any."""
        return self.request.is_fused and not self._is_prefilled

    @property
    def held_bytes(self) -> int:
        """Memory that it takes, or will take, beside its cache."""
        return self.request.held_bytes if self.is_fused else 0

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller wants no more of it."""
        return self.request.cancelled()

    def need_tokens(self) -> int:
        """Count the tokens of memory that the request takes beside what it was given to reuse."""
        answer = sum(map(len, self._choices)) or self.request.generation.max_new_tokens
        return self._prompt_tokens - self._num_reusable(self.request.reuse)[1] + answer

    def find_prefix(self, prefixes: KeptPrefixes) -> KvSequence | None:
        """Return the kept prefix that saves visuals, unless the request names what to reuse."""
        request = self.request
        if request.reuse is not None or request.after or not request.visual_tokens:
            return None
        return prefixes.find(self._elements, request.position_scale, request.kv_format)

    def admit(self, prefix: KvSequence | None = None, *, wanted_tokens: int = 0) -> None:
        """Reserve all the memory the request will ever need.

        Args:
            prefix: of `find_prefix`.
            wanted_tokens: as in `KvCache.reserve`.

        Raises:
            CapacityError: the arena has no room now; nothing stays reserved.
            ConfigError: the sequence to reuse was released, or is another engine's.
        """
        request, arena = self.request, self._tools.arena
        reuse = request.reuse if prefix is None else prefix
        num_elements, reused_tokens = self._num_reusable(reuse)
        if reuse is not None and not reuse.is_in(arena):
            raise ConfigError("the sequence to reuse is another engine's.", "reuse one of its own.")
        if request.after:
            sequence = request.after.begin(arena)
        elif num_elements and reuse is not None:
            sequence = reuse.fork(num_elements)
        else:
            sequence = KvSequence(
                arena, position_scale=request.position_scale, kv_format=request.kv_format
            )
        try:
            missing = self._prompt_tokens - reused_tokens
            if self._choices:
                sequence.reserve(missing, wanted_tokens=wanted_tokens)
                self._scorer = ChoiceScorer(
                    self._choices, arena, self._tools.eos_ids, request.kv_format
                )
            else:
                missing += request.generation.max_new_tokens
                sequence.reserve(missing, wanted_tokens=wanted_tokens)
        except BaseException:
            sequence.release()
            raise
        self._sequence, self._reused_tokens = sequence, reused_tokens
        parts = request.parts if request.after else parts_after(request.parts, num_elements)
        self._rows = self._tools.rows_of(parts)
        self._marks_s.append(time.perf_counter())

    def works(self, prefill_tokens: int) -> list[Work]:
        """Return what the request brings to the next step.

        A prompt that is fused with its frames takes in those of one vision call, and brings nothing
        before it has all of them.

        Args:
            prefill_tokens: most prompt tokens it may bring; 0 leaves a prefilling request out.

        Raises:
            Exception: whatever reading the request's frames raises.
        """
        model, sequence, rows = self._tools.model, self._sequence, self._rows
        if sequence is None or rows is None:
            return []
        if rows.is_fusing:
            rows.fuse()
            self._tell_vision(rows)
            return []
        if rows.num_left:
            num_tokens = min(prefill_tokens, rows.num_left)
            hidden = rows.take(num_tokens) if num_tokens else None
        elif self._scorer:
            return self._scorer.works(model)
        else:
            last_id = torch.tensor(self._writer.ids[-1:], device=model.device)
            hidden = model.language_model.embed(last_id)
        if hidden is None:
            return []
        # Wanted of every chunk: they show at once, and not at the prompt's end, that one is not
        # finite, while what made it can be computed again.
        return [Work(sequence=sequence, hidden=hidden, num_logits=1)]

    def writing(self) -> tuple[KvSequence, AnswerWriter] | None:
        """Return the sequence and the writer of an answer whose tokens a device may choose alone.

        The next token to compute is the writer's last, and the sequence has room for the rest. None
        while the prompt is read, and for choices and schemas.
        """
        is_free = self._is_prefilled and not self._scorer and self._writer.is_free
        return (self._sequence, self._writer) if is_free and self._sequence else None

    def take(self, token_id: int) -> None:
        """Take the token that a device chose after the writer's last one."""
        if self._sequence:
            self._sequence.append(1, completes=self._writer.ids[-1:])
            self._tell_written(self._writer.write_chosen(token_id))

    def is_visual(self, token_idx: int) -> bool:
        """Whether a token of the prompt comes from a picture or video."""
        for element in self._elements:
            token_idx -= tokens_of([element])
            if token_idx < 0:
                return isinstance(element, VisualRun)
        return False

    def receive(self, works: Sequence[Work], logits: Sequence[Tensor]) -> None:
        """Take the logits of `works`, finite, and go on; tells what there is to tell.

        Raises:
            ConfigError: the answer's schema hit the grammar's limits.
        """
        sequence, rows = self._sequence, self._rows
        if sequence is None or rows is None:
            return
        if self._is_prefilled and self._scorer:
            self._scorer.read(logits)
            if self._scorer.is_done:
                self._choose(self._scorer)
        elif self._is_prefilled:
            sequence.append(1, completes=self._writer.ids[-1:])
            self._tell_written(self._writer.write(logits[0][0]))
        else:
            self._read_prompt(sequence, rows, len(works[0].hidden))
            if self._is_prefilled and self._scorer:
                self._scorer.begin(sequence, logits[0])
            elif self._is_prefilled:
                self._tell_written(self._writer.write(logits[0][0]))

    def cancel(self) -> None:
        """End the request with what was written so far."""
        if self._writer.finish_reason is None:
            self._tell_text(self._writer.end("cancelled"))
        self._finish("cancelled")

    def fail(self, error: Exception) -> None:
        """End the request without an answer."""
        self.abandon()
        self._tell(Failed(self.request.request_id, error))

    def abandon(self) -> None:
        """Let go of everything and tell nobody."""
        self.has_ended = True
        if self._scorer:
            self._scorer.release()
        if self._sequence:
            self._sequence.release()
        rows, self._rows, self._scorer, self._sequence = self._rows, None, None, None
        try:
            if rows:
                rows.close()
        except Exception:  # a source that does not close must not keep the others from ending
            logger.warning("a source did not close", exc_info=True)

    def _num_reusable(self, reuse: KvSequence | None) -> tuple[int, int]:
        """Return how many elements a sequence saves, and their tokens.

        The last element is always computed: the answer begins with its logits.
        """
        request = self.request
        if request.after:
            num = len(request.after.elements)
            return num, tokens_of(self._elements[:num])
        alike = (request.position_scale, request.kv_format)
        if reuse is None or (reuse.position_scale, reuse.kv_format) != alike:
            return 0, 0
        num = min(reuse.num_shared(self._elements), len(self._elements) - 1)
        return num, tokens_of(self._elements[:num])

    def _read_prompt(self, sequence: KvSequence, rows: PromptRows, num_tokens: int) -> None:
        """Note that a piece of the prompt was read, and tell how far it is."""
        named = () if rows.num_left else self._elements[len(sequence.elements) :]
        sequence.append(num_tokens, completes=named)
        self._tell_vision(rows)
        done, total = sequence.num_tokens, self._prompt_tokens
        self._tell(Progress(self.request.request_id, "prefill", done, total))
        if not rows.num_left:
            self._is_prefilled = True
            self._marks_s.append(time.perf_counter())
            rows.close()

    def _tell_vision(self, rows: PromptRows) -> None:
        done, total = rows.frames_done, rows.num_frames
        if done > self._frames_told:
            self._frames_told = done
            self._tell(Progress(self.request.request_id, "vision", done, total))

    def _tell_written(self, piece: str) -> None:
        """Tell what the writer wrote, and end the request where it ended the answer."""
        done, total = len(self._writer.ids), self.request.generation.max_new_tokens
        if done > self._num_told:
            self._num_told = done
            self._tell(Progress(self.request.request_id, "generate", done, total))
        self._tell_text(piece)
        if self._writer.finish_reason:
            self._finish(self._writer.finish_reason)

    def _choose(self, scorer: ChoiceScorer) -> None:
        log_probs = scorer.log_probs
        idx = self._writer.chooser.choose_among(log_probs)
        self._confidence = float(torch.softmax(log_probs, dim=-1)[idx])
        if self._sequence:
            self._sequence.release()
        self._sequence = scorer.take(idx)
        choice = self.request.generation.choices[idx]
        self._tell_text(self._writer.write_choice(choice, list(self._choices[idx])))
        self._finish(self._writer.finish_reason or "stop")

    def _tell_text(self, piece: str) -> None:
        if piece:
            self._tell(TextPiece(self.request.request_id, piece))

    def _finish(self, reason: FinishReason) -> None:
        kept = None
        if self._sequence and self._is_prefilled:
            self._sequence.trim()
            if reason != "cancelled" and not (self.request.is_fused or self.request.after):
                self._tools.prefixes.keep(self._sequence, self._elements)
            if self.request.keep:
                kept, self._sequence = self._sequence, None
        timings = self._timings()
        self.abandon()
        writer = self._writer
        answer = Answer(
            text=writer.text,
            token_ids=tuple(writer.ids),
            finish_reason=reason,
            text_tokens=self.request.text_tokens,
            visual_tokens=self.request.visual_tokens,
            new_tokens=len(writer.ids),
            reused_tokens=self._reused_tokens,
            parsed=writer.parsed,
            confidence=self._confidence,
            warnings=writer.warnings,
            timings=timings,
            sequence=kept,
        )
        self._tell(Finished(self.request.request_id, answer))

    def _timings(self) -> dict[str, float]:
        marks = [*self._marks_s, time.perf_counter()]
        spans_s = [after - before for before, after in itertools.pairwise(marks)]
        timings = dict(zip(("wait", "prefill", "generate"), spans_s, strict=False))
        timings["vision"] = self._rows.vision_s if self._rows else 0.0
        if "prefill" in timings:
            timings["prefill"] -= timings["vision"]
        return timings


def _check_ids(ids: Sequence[int], vocab_size: int) -> None:
    if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
        raise ConfigError(
            f"the prompt has ids from {min(ids)} to {max(ids)}, the model knows {vocab_size}.",
            "use the checkpoint's own tokenizer.",
        )


def _check_choices(generation: GenerationSettings, choices: list[list[int]]) -> None:
    if not all(choices):
        raise ConfigError("a choice comes to no token.", "choices of letters or digits.")
    most = max(map(len, choices), default=0)
    if most > generation.max_new_tokens:
        raise ConfigError(
            f"max_new_tokens = {generation.max_new_tokens}, and a choice takes {most} tokens.",
            f"max_new_tokens={most}, or shorter choices: a choice is never cut.",
        )
