"""Two linear layers with the exact GELU between them."""

import pytest
import torch
from seeded_models import filled
from torch import nn

from llava_video.model.projector import Projector


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_the_mlp_is_linear_gelu_linear(mode):
    projector = filled(Projector(6, 5), spread=1.0)
    first, second = nn.Linear(6, 5), nn.Linear(5, 5)
    first.load_state_dict(projector.linear1.state_dict())
    second.load_state_dict(projector.linear2.state_dict())
    features = torch.randn(2, 7, 6) * 2
    before = features.clone()
    with mode():
        rows = projector(features)
    assert torch.allclose(rows, second(nn.GELU()(first(features))), atol=1e-6)
    assert torch.equal(features, before)
    with_tanh = second(nn.GELU(approximate="tanh")(first(features)))  # the tower's, trap T14
    assert not torch.allclose(rows, with_tanh, atol=1e-5)
