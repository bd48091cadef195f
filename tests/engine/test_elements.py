"""Tokens are counted by what they stand for."""

from llava_video.engine.elements import VisualRun, tokens_of


def test_a_visual_counts_with_all_its_rows() -> None:
    assert tokens_of([]) == 0
    assert tokens_of([7, VisualRun("a", 196), 7, VisualRun("b", 1)]) == 199
