"""Section 3: perturbations g (Eq. 1-3), similarity and loss (Eq. 4-7), encoder f, predictor h, and SimCLIC itself.

One encoder pass and one predictor pass per image: z_i = z_j and p_i = p_j, only the two draws of g differ.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclic.errors import InputError
from simclic.experiment import PERTURBATIONS, Run, knob, method, perturbation
from simclic.methods.base import Generator, Method, Step
from simclic.methods.heads import build_predictor, build_projector


@perturbation(knob(
    0.3, "share of the past under history (Eq. 1)", low=0.0, below=1.0, question="τ, p, ε", also=("p", "eps"),
    paper="p = 0.25 “for example”; τ and ε not given", why="placeholders until the sweeps say better",
))  # fmt: skip
def history(z: Tensor, tau: float, z_before: Tensor, generator: Generator = None) -> Tensor:
    """Mix z with what it was one iteration before (Eq. 1).

    z: (B, d) encoder output z^t. z_before: (B, d), z^{t-1} of the same images. tau: share of the past. Returns (B, d).
    """
    return tau * z_before + (1 - tau) * z


@perturbation(knob(0.25, "probability of a coordinate to be dropped under dropout (Eq. 2)", low=0.0, high=1.0))
def dropout(z: Tensor, p: float, z_before: Tensor | None = None, generator: Generator = None) -> Tensor:
    """Set each coordinate to 0 with probability p (Eq. 2). The rest is not rescaled, as printed; the cosine does not see it.

    z: (B, d) encoder output. Returns (B, d).
    """
    return z * (torch.rand(z.shape, generator=generator, device=z.device) >= p)


@perturbation(knob(0.1, "length of the step under noise (Eq. 3)", low=0.0))
def noise(z: Tensor, eps: float, z_before: Tensor | None = None, generator: Generator = None) -> Tensor:
    """Move z by a step of length eps that keeps every coordinate's sign (Eq. 3, Figure 3).

    z: (B, d) encoder output. eps: l2 norm of the step; 0 returns z. Returns (B, d).
    """
    u = torch.rand(z.shape, generator=generator, device=z.device)
    return z + eps * F.normalize(u * z.detach().sign(), dim=1)


@perturbation(name="none")
def identity(z: Tensor, _: float, z_before: Tensor | None = None, generator: Generator = None) -> Tensor:
    """No perturbation: the control that asks what the idea itself is worth. z: (B, d). Returns z."""
    return z


G: dict[str, Callable[..., Tensor]] = {name: globals()[g.function] for name, g in PERTURBATIONS.items()}


def cosine(p: Tensor, z_tilde: Tensor) -> Tensor:
    """Negative cosine similarity (Eq. 4). p, z_tilde: (B, d). Returns (B,); -1 for parallel vectors."""
    return -F.cosine_similarity(p, z_tilde, dim=1)


def cross_entropy(p: Tensor, z_tilde: Tensor) -> Tensor:
    """Cross-entropy of softmax(p) under softmax(z_tilde) (Eq. 7). p, z_tilde: (B, d). Returns (B,)."""
    return -(z_tilde.softmax(dim=1) * p.log_softmax(dim=1)).sum(dim=1)


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "cross-entropy": cross_entropy}


@method("SimCLIC", passes=1, reads=(
    "predictor", "predictor_dim", "perturbation", "perturbs", "history_of", "bernoulli", "normalize_z", "similarity",
    "stop_gradient",
))  # fmt: skip
class SimCLIC(Method):
    """SimCLIC as Section 3 and Algorithm 1 describe it, to be trained in any loop:

        model = SimCLIC(Run(perturbation="noise", eps=0.2), images=len(dataset))
        loss = model(x, index).loss

    run: the method's settings; its defaults are the paper's. images: the number of images, each of which has a row of the
    history (only "history" needs it). f: any module with `num_features` in place of the backbone that `run` names.
    """

    watched: ClassVar[tuple[str, ...]] = ("cos(z, g(z))",)
    z_before: Tensor
    seen: Tensor

    def __init__(self, run: Run, images: int = 0, f: nn.Module | None = None, trained: int | None = None):
        super().__init__(run, images, f, trained)
        self.projector = build_projector(self.width, self.d)
        self.h = build_predictor(run.predictor, self.d, run.predictor_dim)
        self.g = G[run.perturbation]
        self.sim = SIMILARITIES[run.similarity]
        self.strength = self._read_strength()
        if run.perturbation == "history":
            rows = images if run.history_of == "image" else run.batch_size
            if rows < 1:
                raise InputError("images=0 with perturbation='history': it keeps one row per image; pass images=len(dataset)")
            self.register_buffer("z_before", torch.zeros(rows, self.d))
            self.register_buffer("seen", torch.zeros(rows, dtype=torch.bool))

    def forward(self, x: Tensor, index: Tensor | None = None, generator: Generator = None) -> Step:
        """Loss of a batch (Eq. 6; Algorithm 1, lines 2-5).

        x: (B, 3, S, S) images. index: (B,) which image each one is, in [0, images); only "history" reads it.
        generator: of the draws of g, on the device of x; the global one if None.
        """
        features = self.backbone(x)  # (B, width)
        z = self.projector(features)  # (B, d), z_i = z_j
        p = self.h(z)  # (B, d), p_i = p_j
        # Algorithm 1 writes g(p); Section 3.3 and Eq. 4-6 perturb z. We follow the equations.
        source = z if self.run.perturbs == "z" else p
        z_tilde_i, z_tilde_j = self.perturb(source, index, generator)
        targets = (z_tilde_i.detach(), z_tilde_j.detach()) if self.run.stop_gradient else (z_tilde_i, z_tilde_j)
        loss = sum(0.5 * self.sim(p.float(), target.float()).mean() for target in targets)
        with torch.no_grad():
            turned = F.cosine_similarity(source.float(), z_tilde_i.float(), dim=1).mean()
        return Step(loss, z, features, {"cos(z, g(z))": turned})  # type: ignore[arg-type]

    def perturb(self, z: Tensor, index: Tensor | None, generator: Generator = None) -> tuple[Tensor, Tensor]:
        """Return two draws of g (Section 3.2), (B, d) each, and store z in the history. z: (B, d)."""
        first = self.draw_perturbed(z, index, generator)  # with history nothing is drawn: both are equal
        second = first if self.run.perturbation == "history" else self.draw_perturbed(z, index, generator)
        self.store_history(z, index)
        return first, second

    def draw_perturbed(self, z: Tensor, index: Tensor | None, generator: Generator = None) -> Tensor:
        """Return one draw of g, (B, d). z: (B, d)."""
        if self.run.perturbation == "history":
            rows = self._find_rows(z, index)
            return self.g(z, self.strength, torch.where(self.seen[rows, None], self.z_before[rows], z.detach().float()))
        if self.run.perturbation == "noise" and self.run.normalize_z:
            z = F.normalize(z, dim=1)
        return self.g(z, self.strength, generator=generator)

    def store_history(self, z: Tensor, index: Tensor | None) -> None:
        """Store z, (B, d), as what the next iteration calls z^{t-1}; at the first visit of an image that is z itself."""
        if self.run.perturbation == "history" and self.training:
            rows = self._find_rows(z, index)
            self.z_before[rows] = z.detach().float()
            self.seen[rows] = True

    def _find_rows(self, z: Tensor, index: Tensor | None) -> Tensor:
        """Return the rows of the history that belong to the rows of z."""
        if self.run.history_of == "iteration":
            return torch.arange(len(z), device=z.device)
        if index is None:
            raise InputError("index=None with perturbation='history': pass the image of each row")
        return index

    def _read_strength(self) -> float:
        """Return tau, p or eps, whichever g takes."""
        name = PERTURBATIONS[self.run.perturbation].strength
        value = getattr(self.run, name) if name else 0.0
        return 1 - value if self.run.perturbation == "dropout" and self.run.bernoulli == "keep" else value
