import pytest

from llava_video.engine.elements import VisualRun
from llava_video.engine.request import Failed, Progress, Request, TextPart, answer_of
from llava_video.errors import ConfigError, DecodeError


def test_a_prompt_is_named_by_ids_and_whole_visuals(video):
    part = video([1, 2])
    request = Request(parts=(TextPart((5, 6)), part, TextPart((7,))))
    assert request.elements() == [5, 6, VisualRun(part.key, 12), 7]
    assert (request.text_tokens, request.visual_tokens) == (3, 12)
    assert part.clips.opened == 0


def test_a_fused_prompt_is_one_visual_whose_key_names_all_of_it(video, fused):
    part = fused("ab", [1, 2], "c")
    request = Request(parts=(part,))
    assert request.elements() == [VisualRun(part.key, 2 + 8 + 1)]
    assert (request.text_tokens, request.visual_tokens) == (3, 8)
    assert request.text_ids == (97, 98, 99)
    assert request.visuals == (part.visual,)
    assert request.is_fused
    others = [fused("ab", [1, 2], "d"), fused("a", [1, 2], "bc"), fused("ab", [1, 3], "c")]
    assert len({part.key, part.visual.key, *(other.key for other in others)}) == 5
    assert fused("ab", [1, 2], "c").key == part.key
    with pytest.raises(ConfigError, match="2 parts, one of them fused"):
        Request(parts=(TextPart((1,)), part))


@pytest.mark.parametrize("parts", [(), (TextPart(()),)])
def test_an_empty_prompt_is_refused(parts):
    with pytest.raises(ConfigError, match="empty prompt"):
        Request(parts=parts)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_position_scale_is_positive(scale):
    with pytest.raises(ConfigError, match="position_scale"):
        Request(parts=(TextPart((1,)),), position_scale=scale)


def test_no_pixels_in_the_repr(video):
    assert "Frames" not in repr(Request(parts=(video([1]),)))


def test_answer_of_raises_the_requests_own_error():
    class Broken:
        def run(self, requests):
            for request in requests:
                yield Progress(request.request_id, "vision", 1, 2)
                yield Failed(request.request_id, DecodeError("frame 2 is damaged.", "skip it."))

    with pytest.raises(DecodeError, match="skip it"):
        answer_of(Broken(), Request(parts=(TextPart((1,)),)))


def test_answer_of_returns_the_answer(engine, ask):
    answer = answer_of(engine, ask("Hi", max_new_tokens=3))
    assert answer.new_tokens == len(answer.token_ids) == 3
