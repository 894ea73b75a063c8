"""Dense networks, normalisations and activations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.exports.architecture import Architecture, collected

Built = tuple[nn.Module, tuple[Any, ...]]


def mlp(batch: int = 1) -> Built:
    layers = [nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4), nn.Softmax(dim=-1)]
    return nn.Sequential(*layers), (torch.rand(batch, 8),)


def mlp_bn() -> Built:
    layers = [nn.Linear(8, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, 4)]
    return nn.Sequential(*layers), (torch.rand(1, 8),)


def residual_mlp() -> Built:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.norm = nn.Linear(8, 16), nn.Linear(16, 8), nn.LayerNorm(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x + self.down(F.silu(self.up(x))))

    return Residual(), (torch.rand(1, 8),)


def two_towers() -> Built:
    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(8, 4), nn.Linear(6, 4)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return F.cosine_similarity(self.left(a), self.right(b), dim=-1)

    return Towers(), (torch.rand(1, 8), torch.rand(1, 6))


def wide_and_deep() -> Built:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.deep = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
            self.wide = nn.Linear(36, 1)
            self.register_buffer(
                "pairs", torch.combinations(torch.arange(8), with_replacement=True)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            crossed = x[:, self.pairs[:, 0]] * x[:, self.pairs[:, 1]]
            return torch.sigmoid(self.deep(x) + self.wide(crossed))

    return Wide(), (torch.rand(1, 8),)


def gated() -> Built:
    layers = [nn.Linear(8, 16), nn.GLU(dim=-1), nn.Linear(8, 4)]
    return nn.Sequential(*layers), (torch.rand(1, 8),)


def mixture_of_experts() -> Built:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(8, 3)
            self.experts = nn.ModuleList([nn.Linear(8, 4) for _ in range(3)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weights = F.softmax(self.gate(x), dim=-1)
            stacked = torch.stack([F.relu(e(x)) for e in self.experts], dim=1)
            return (weights.unsqueeze(-1) * stacked).sum(dim=1)

    return Experts(), (torch.rand(1, 8),)


def graph_convolution() -> Built:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
            self.register_buffer("adjacency", torch.rand(5, 5).round() / 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.adjacency @ self.last(F.relu(self.adjacency @ self.first(x)))

    return Graph(), (torch.rand(5, 4),)


def fourier_features() -> Built:
    class Fourier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(8, 3)
            self.register_buffer("frequencies", torch.randn(2, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x @ self.frequencies
            return self.last(torch.cat([torch.sin(y), torch.cos(y)], dim=-1))

    return Fourier(), (torch.rand(1, 2),)


def physics_informed() -> Built:
    layers = [nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)]
    return nn.Sequential(*layers), (torch.rand(4, 2),)


def activated(make: Callable[[], nn.Module]) -> Built:
    return nn.Sequential(nn.Linear(6, 8), make(), nn.Linear(8, 3)), (torch.rand(1, 6),)


def normalised(layer: nn.Module, shape: tuple[int, ...]) -> Built:
    return nn.Sequential(nn.Conv2d(3, 4, 3), layer, nn.ReLU()), (torch.rand(1, *shape),)


def rms_norm() -> Built:
    return nn.Sequential(nn.Linear(8, 8), nn.RMSNorm(8), nn.Linear(8, 3)), (torch.rand(1, 8),)


def classifier_tail(tail: Callable[[torch.Tensor], Any]) -> Built:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> Any:
            return tail(self.dense(x))

    return Classifier(), (torch.rand(1, 8),)


_DENSE: dict[str, Callable[[], Built]] = {
    "mlp": mlp,
    "mlp_batch": partial(mlp, 4),
    "mlp_bn": mlp_bn,
    "mlp_residual": residual_mlp,
    "two_towers": two_towers,
    "wide_and_deep": wide_and_deep,
    "gated": gated,
    "mixture_of_experts": mixture_of_experts,
    "graph_convolution": graph_convolution,
    "fourier_features": fourier_features,
    "pinn": physics_informed,
    "tail_argmax": partial(classifier_tail, lambda y: y.argmax(dim=-1)),
    "tail_topk": partial(classifier_tail, lambda y: torch.topk(y, 2, dim=-1)),
    "tail_threshold": partial(classifier_tail, lambda y: (torch.sigmoid(y) > 0.5).float()),
}
_ACTIVATIONS: dict[str, Callable[[], Built]] = {
    f"act_{make.__name__.lower()}": partial(activated, make)
    for make in (
        nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh,
        nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.PReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid,
        nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink,
    )
}  # fmt: skip
_ACTIVATIONS["act_gelu_tanh"] = partial(activated, partial(nn.GELU, approximate="tanh"))
_ACTIVATIONS["act_threshold"] = partial(activated, partial(nn.Threshold, 0.1, 0.0))
_NORMS: dict[str, Callable[[], Built]] = {
    "norm_group": partial(normalised, nn.GroupNorm(2, 4), (3, 6, 6)),
    "norm_instance": partial(normalised, nn.InstanceNorm2d(4), (3, 6, 6)),
    "norm_layer": partial(normalised, nn.LayerNorm([4, 4, 4]), (3, 6, 6)),
    "norm_local_response": partial(normalised, nn.LocalResponseNorm(3), (3, 6, 6)),
    "norm_rms": rms_norm,
    "norm_l2": partial(classifier_tail, lambda y: F.normalize(y, dim=-1)),
    "norm_softmin": partial(classifier_tail, lambda y: F.softmin(y, dim=-1)),
}

ARCHITECTURES: list[Architecture] = [
    *collected("dense", _DENSE),
    *collected("activations", _ACTIVATIONS),
    *collected("normalisations", _NORMS),
]
