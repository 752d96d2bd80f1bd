"""Backbones as bytes: safetensors under timm's key names."""

from safetensors.torch import load, save
from torch import nn


def pack(backbone: nn.Module) -> bytes:
    """The backbone's parameters and buffers, in safetensors' format."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()})


def unpack(payload: bytes, backbone: nn.Module) -> nn.Module:
    """Load what `pack` wrote into a backbone of the same kind; every key is used, every shape matches. Returns it."""
    backbone.load_state_dict(load(payload))
    return backbone
