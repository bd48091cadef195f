"""A model with an adapter: one call, merged or beside, planned for and told apart."""

from pathlib import Path

import overlay_cases as cases
import pytest

from llava_video.api import describe_video, load
from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.low_rank import has_change_beside
from llava_video.preview import plan_video

SHORT = {"max_new_tokens": 6, "num_frames": 4, "loop_guard": False}


@pytest.fixture
def adapter(tiny_folder: Path, tmp_path: Path) -> Path:
    pairs = {
        cases.Q_PROJ: cases.low_rank(4, 64, 64, 1),
        cases.DOWN_PROJ: cases.low_rank(4, 64, 128, 2),
    }
    return cases.write_adapter(tiny_folder, tmp_path / "adapter", pairs)


def test_an_adapter_over_a_named_model(tiny_folder: Path, tiny_clip: Path, adapter: Path) -> None:
    asked = {"adapter": adapter, "device": "cpu"}
    with load(tiny_folder, **asked) as merged, load(adapter, device="cpu") as same:
        text = merged.describe(tiny_clip, **SHORT).text
        assert text == same.describe(tiny_clip, **SHORT).text
        assert not has_change_beside(merged.engine._tools.model)  # type: ignore[attr-defined]  # the scheduler's
        plan = merged.plan(tiny_clip, **SHORT)
        assert plan.model == merged.spec.name == f"{tiny_folder} + {adapter}"
        assert merged.run(plan).text == text
    beside = describe_video(tiny_clip, model=tiny_folder, merge_adapter=False, **asked, **SHORT)
    assert beside.text == text
    assert beside.text != describe_video(tiny_clip, model=tiny_folder, device="cpu", **SHORT).text


def test_beside_quantised_weights_the_plan_counts_it(
    tiny_folder: Path, tiny_clip: Path, adapter: Path
) -> None:
    asked = {"adapter": adapter, "device": "cpu", "quantize": "int4"}
    with load(tiny_folder, **asked) as loaded:
        assert has_change_beside(loaded.engine._tools.model)  # type: ignore[attr-defined]  # the scheduler's
        seen = loaded.describe(tiny_clip, **SHORT)
    # Planned before anything is loaded, it is the same.
    early = plan_video(tiny_clip, model=tiny_folder, **asked, **SHORT)
    assert early.memory == seen.plan.memory
    base = plan_video(tiny_clip, model=tiny_folder, device="cpu", quantize="int4", **SHORT)
    own = 4 * (64 + 64) + 4 * (128 + 64)
    assert early.memory.weights_bytes - base.memory.weights_bytes == 4 * own
    assert any("stands beside int4 weights" in reason for reason in early.reasons)


def test_what_cannot_be_is_told(tiny_folder: Path, tiny_clip: Path, adapter: Path) -> None:
    with pytest.raises(CheckpointError, match="is no adapter"):
        load(tiny_folder, adapter=tiny_folder)
    with pytest.raises(ConfigError, match="has no adapter"):
        load(tiny_folder, merge_adapter=True, device="cpu")
    with load(tiny_folder, device="cpu") as loaded, pytest.raises(ConfigError, match="when a mod"):
        describe_video(tiny_clip, model=loaded, adapter=adapter)
