"""Heads that methods share: the projector of the encoder, and the predictor."""

from torch import nn


def build_projector(width: int, d: int) -> nn.Sequential:
    """Return three layers, batch norm on each including the output (Section 3.4): (B, width) to (B, d).

    As in SimSiam, the last batch norm has no affine part, and the linear layers no bias, which the norms would cancel.
    """
    return nn.Sequential(
        nn.Linear(width, d, bias=False), nn.BatchNorm1d(d), nn.ReLU(inplace=True),
        nn.Linear(d, d, bias=False), nn.BatchNorm1d(d), nn.ReLU(inplace=True),
        nn.Linear(d, d, bias=False), nn.BatchNorm1d(d, affine=False),
    )  # fmt: skip


def build_predictor(kind: str, d: int, hidden: int) -> nn.Module:
    """Return h: (B, d) to (B, d). Two layers, batch norm on the first (Section 3.4), or an ablation of Table 4."""
    if kind == "none":
        return nn.Identity()
    if kind == "1-layer":
        return nn.Linear(d, d)
    h = nn.Sequential(nn.Linear(d, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, d))
    return h.requires_grad_(kind != "frozen")
