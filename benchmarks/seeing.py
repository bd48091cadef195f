"""A request → the answer of a stand-in for a model, where everything but the model is measured."""

from llava_video.engine.request import Answer, Finished, Request


def seen(request: Request) -> Finished:
    """End a request with one word, whatever it shows."""
    answer = Answer(
        text="seen.",
        token_ids=(0,),
        finish_reason="stop",
        text_tokens=request.text_tokens,
        visual_tokens=request.visual_tokens,
        new_tokens=1,
    )
    return Finished(request.request_id, answer)
