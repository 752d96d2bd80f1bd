"""Backbones as bytes."""

import pytest
import torch
from conftest import tiny

from simclic import weights
from simclic.method import backbone


def test_packed_weights_come_back_bit_for_bit():
    f = backbone(tiny())
    g = weights.unpack(weights.pack(f), backbone(tiny()))
    assert all(a.equal(b) for a, b in zip(f.state_dict().values(), g.state_dict().values(), strict=True))
    assert list(f.state_dict()) == list(g.state_dict())


def test_weights_of_another_backbone_are_refused():
    with pytest.raises(RuntimeError, match="Missing key"):
        weights.unpack(weights.pack(torch.nn.Linear(2, 2)), backbone(tiny()))
