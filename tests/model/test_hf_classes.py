"""The table of transformers' classes agrees with the classes themselves."""

import pytest
from transformers import CONFIG_MAPPING, AutoConfig

from llava_video.model.hf_classes import ARCHITECTURES, HF_CLASSES, TEXT_DEFAULTS


@pytest.mark.parametrize("backbone", list(TEXT_DEFAULTS))
def test_the_decoders_defaults_are_the_classes(backbone: str):
    config = CONFIG_MAPPING[backbone]()
    for key, value in TEXT_DEFAULTS[backbone].items():
        # No number of key and value heads means as many as heads.
        expected = config.num_attention_heads if value is None else value
        assert getattr(config, key) == expected, key
    assert set(ARCHITECTURES) == set(TEXT_DEFAULTS)


@pytest.mark.parametrize("model_type", list(HF_CLASSES))
def test_the_classes_layer_and_selection(model_type: str):
    config, kind = AutoConfig.for_model(model_type), HF_CLASSES[model_type]
    assert config.vision_feature_layer == kind.layer
    assert config.vision_feature_select_strategy == kind.select
    assert config.vision_config.model_type == f"{kind.tower}_vision_model"
    assert config.text_config.model_type == kind.backbones[0]
