"""A DeepSpeed file → its values, checked, with numbers where it leaves sizes to the model.

transformers would take these sizes from `model.config`, which a model of ours has not. Knows no
model and starts nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava_video.errors import ConfigError

_OURS = ("optimizer", "scheduler")


def read_deepspeed(path: str) -> dict[str, Any]:
    """Return what a DeepSpeed file says.

    Args:
        path: of a JSON file.

    Raises:
        ConfigError: it cannot be read, is no object, or has an optimiser or a schedule of its own,
            before which those of the stage would be dropped in silence.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise ConfigError(
            f"deepspeed: {path} cannot be read: {cause}.",
            "name a JSON file, as configs/train/zero2.json.",
        ) from cause
    if not isinstance(values, dict):
        raise ConfigError(
            f"deepspeed: {path} is no JSON object.", 'for example {"zero_optimization": …}.'
        )
    own = [name for name in _OURS if name in values]
    if own:
        raise ConfigError(
            f"deepspeed: {path} has {' and '.join(own)} of its own.",
            "take it out: rates, decay and schedule are the stage's.",
        )
    return values


def with_sizes(values: Mapping[str, Any], hidden_size: int) -> dict[str, Any]:
    """Return the values with numbers in the place of the sizes that are "auto".

    Source: `HfTrainerDeepSpeedConfig.trainer_config_finalize` of transformers 5.23. Of a decoder of
    896 channels: buckets of 802,816 and 722,534 numbers; what has fewer than 8,960 is not shared.

    Args:
        values: of `read_deepspeed`.
        hidden_size: channels of the decoder.
    """
    zero = values.get("zero_optimization")
    if not isinstance(zero, Mapping):
        return dict(values)
    sizes = {
        "reduce_bucket_size": hidden_size**2,
        "stage3_prefetch_bucket_size": int(0.9 * hidden_size**2),
        "stage3_param_persistence_threshold": 10 * hidden_size,
    }
    filled = {name: size for name, size in sizes.items() if zero.get(name) == "auto"}
    return {**values, "zero_optimization": {**zero, **filled}}
