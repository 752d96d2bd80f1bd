"""SimCLIC on two augmented views: a control that asks what is left of SimCLIC's gain beside SimSiam's augmentation."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simclic.experiment import method
from simclic.methods.base import Generator, Step
from simclic.methods.simclic import SimCLIC
from simclic.methods.views import ViewRecipe


@method("SimCLIC on two views", passes=2, views=2, reads=(
    "predictor", "predictor_dim", "perturbation", "perturbs", "history_of", "bernoulli", "normalize_z", "similarity",
    "stop_gradient",
))  # fmt: skip
class SimCLICOnTwoViews(SimCLIC):
    """SimCLIC with z_i and z_j of two views: each is predicted from the other one, perturbed. SimSiam where g is the identity.

    Both views of an image share its row of the history: each is mixed with the first view's z of the iteration before.
    """

    watched = ("cos(z, g(z))", "cos(z_i, z_j)")
    recipes = (ViewRecipe(), ViewRecipe())

    def forward(self, x: Any, index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch (Eq. 6 with an encoder pass for each view). x: two views, (B, 3, S, S) each."""
        features_i, features_j = (self.backbone(view) for view in x)  # (B, width)
        z_i, z_j = self.projector(features_i), self.projector(features_j)  # (B, d)
        p_i, p_j = self.h(z_i), self.h(z_j)  # (B, d)
        source_i, source_j = (z_i, z_j) if self.run.perturbs == "z" else (p_i, p_j)
        z_tilde_i, z_tilde_j = (self.draw_perturbed(source, index, generator) for source in (source_i, source_j))
        self.store_history(source_i, index)
        targets = (z_tilde_i.detach(), z_tilde_j.detach()) if self.run.stop_gradient else (z_tilde_i, z_tilde_j)
        loss = 0.5 * self.sim(p_i.float(), targets[1].float()).mean() + 0.5 * self.sim(p_j.float(), targets[0].float()).mean()
        with torch.no_grad():
            turned = F.cosine_similarity(source_i.float(), z_tilde_i.float(), dim=1).mean()
            alike = F.cosine_similarity(z_i.float(), z_j.float(), dim=1).mean()
        return Step(loss, z_i, features_i, {"cos(z, g(z))": turned, "cos(z_i, z_j)": alike})
