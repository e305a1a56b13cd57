"""The networks, and the table of their layers."""

from collections.abc import Callable
from functools import partial
from typing import cast

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BaselineNet(nn.Sequential):
    """The reference coursework's compact CNN: three 2x2 convolutions, three linear layers, 48,252 parameters.

    Takes (n, 3, 32, 32) normalised images, returns (n, 10) logits. wider: multiplies every width but the last.
    """

    def __init__(self, wider: int = 1):
        a, b, c, d, e = (wider * width for width in (6, 16, 32, 120, 84))
        super().__init__(
            *[nn.Conv2d(3, a, 2), nn.ReLU(), nn.MaxPool2d(2)],  # 31 -> 15
            *[nn.Conv2d(a, b, 2, padding=1), nn.ReLU(), nn.MaxPool2d(2)],  # 16 -> 8
            *[nn.Conv2d(b, c, 2), nn.ReLU(), nn.MaxPool2d(2)],  # 7 -> 3
            nn.Flatten(),
            *[nn.Linear(9 * c, d), nn.ReLU(), nn.Linear(d, e), nn.ReLU(), nn.Linear(e, 10)],
        )


def stage(inputs: int, outputs: int, norm: bool = True) -> list[nn.Module]:
    """conv3x3-BN-ReLU twice, then max-pool: the side of the image halves."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):  # batch normalisation would cancel a bias
        layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=not norm))
        layers += [nn.BatchNorm2d(outputs)] if norm else []
        layers += [nn.ReLU(inplace=True)]  # reads and writes its maps once
    return [*layers, nn.MaxPool2d(2)]


class ImprovedNet(nn.Sequential):
    """Three stages 3-32-64-128, then 2048-256-10 with dropout 0.5.

    Takes (n, 3, 32, 32) normalised images, returns (n, 10) logits. Kaiming initialisation
    (He et al. 2015); the last layer starts small, so the first loss is near log 10.
    The arguments are what the ablation changes.
    """

    def __init__(self, width: int = 32, norm: bool = True, dropout: float = 0.5, kaiming: bool = True):
        super().__init__(
            *stage(3, width, norm),
            *stage(width, 2 * width, norm),  # 32 -> 16 -> 8
            *stage(2 * width, 4 * width, norm),  # 8 -> 4
            nn.Flatten(),
            *[nn.Dropout(dropout), nn.Linear(64 * width, 8 * width), nn.ReLU()],
            *[nn.Dropout(dropout), nn.Linear(8 * width, 10)],
        )
        if not kaiming:
            return
        for module in self:
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(cast(nn.Linear, self[-1]).weight, std=0.01)


class MatrixConv(nn.Conv2d):
    """A 3x3 convolution without bias that holds its filters as rows of a matrix, (outputs, 9 inputs).

    Muon orthogonalises matrices. Takes (n, inputs, h, w), returns (n, outputs, h, w).
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, padding=1, bias=False)
        self.weight = nn.Parameter(self.weight.detach().flatten(1))

    def filters(self) -> Tensor:
        """The weights as filters, (outputs, inputs, 3, 3), in the same memory."""
        return self.weight.view(self.out_channels, self.in_channels, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.filters(), padding=1)


class Scale(nn.Module):
    """Multiply by a fixed number."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def fast_block(inputs: int, outputs: int) -> list[nn.Module]:
    """conv3x3 - max-pool - BN - GELU - conv3x3 - BN - GELU: the side of the image halves.

    The scale of batch normalisation stays 1 and only its bias is trained. Its running statistics
    take 0.4 of every new piece, because the weights change much between steps.
    """
    norms = [nn.BatchNorm2d(outputs, momentum=0.4) for _ in range(2)]
    for norm in norms:
        norm.weight.requires_grad_(False)
    return [
        MatrixConv(inputs, outputs),
        nn.MaxPool2d(2),
        norms[0],
        nn.GELU(),
        MatrixConv(outputs, outputs),
        norms[1],
        nn.GELU(),
    ]


class FastNet(nn.Sequential):
    """Whitened 2x2 patches, three blocks, one linear layer: learns in a few epochs.

    Takes (n, 3, 32, 32) normalised images, returns (n, 10) logits. After airbench (Jordan 2024).
    The filters of the first layer are fixed: fit them by `whiten` before training. As far as a
    convolution has an output for an input, it starts by passing that input on (Dirac).
    """

    def __init__(self, widths: tuple[int, int, int] = (64, 256, 256)):
        a, b, c = widths
        super().__init__(
            nn.Conv2d(3, 24, 2),
            nn.GELU(),  # 31
            *fast_block(24, a),
            *fast_block(a, b),
            *fast_block(b, c),  # 15 -> 7 -> 3
            nn.MaxPool2d(3),
            nn.Flatten(),
            Scale(1 / c),
            nn.Linear(c, 10, bias=False),  # scaling inputs or logits is the same
        )
        self.whitening.weight.requires_grad_(False)
        for layer in self:
            if isinstance(layer, MatrixConv):
                nn.init.dirac_(layer.filters().detach()[: layer.in_channels])
        nn.init.normal_(self.head.weight)

    @property
    def whitening(self) -> nn.Conv2d:
        """The first layer."""
        return cast(nn.Conv2d, self[0])

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        return cast(nn.Linear, self[-1])


@torch.no_grad()
def whiten(model: FastNet, images: Tensor) -> None:
    """Fit the first layer to (n, 3, 32, 32) normalised images: its outputs on their patches get
    covariance 1 and -1 in pairs and 0 else (but for the bias, which it keeps).

    The filters are the 12 eigenvectors of the covariance of 2x2 patches, over the square root of
    their eigenvalues, and their negatives, since GELU keeps little of a negative output.
    """
    patches = F.unfold(images, 2)  # (n, 12, 961)
    mean = patches.mean(dim=(0, 2))
    covariance = (patches @ patches.mT).mean(dim=0) / patches.shape[2] - mean.outer(mean)
    values, vectors = torch.linalg.eigh(covariance)
    filters = vectors.T / (values + 5e-4).sqrt()[:, None]  # 5e-4: do not blow up what is noise
    model.whitening.weight.copy_(torch.cat([filters, -filters]).view_as(model.whitening.weight))


BUILDERS: dict[str, Callable[[], nn.Sequential]] = {
    "BaselineNet": BaselineNet,
    "ImprovedNet": ImprovedNet,
    "NoBatchNorm": partial(ImprovedNet, norm=False),
    "NoDropout": partial(ImprovedNet, dropout=0.0),
    "ConvolutionsAlone": partial(ImprovedNet, norm=False, dropout=0.0),
    "DefaultInit": partial(ImprovedNet, kaiming=False),
    "HalfWidth": partial(ImprovedNet, width=16),
    "QuarterWidth": partial(ImprovedNet, width=8),
    "WideBaseline": partial(BaselineNet, wider=4),
    "FastNet": FastNet,
    "FastNetSmall": partial(FastNet, widths=(64, 128, 256)),
}


def build(network: str, seed: int = 0) -> nn.Sequential:
    """A freshly initialised network, the same for the same seed. channels_last is the faster layout on CPU and GPU."""
    torch.manual_seed(seed)
    if network not in BUILDERS:
        raise ValueError(f"unknown network {network!r}: choose one of {', '.join(BUILDERS)}.")
    return BUILDERS[network]().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def layer_table(model: nn.Sequential, shape: tuple[int, ...] = (3, 32, 32)) -> pd.DataFrame:
    """Layer by layer: output shape, parameters, multiply-accumulates an image, receptive field (pixels a side).

    Parameters are those that are trained; the fixed filters of FastNet count as multiply-accumulates only.
    The receptive field r grows by (k - 1) j at a layer of kernel k, where j is the product of the strides before it; it
    is cut off at the size of the image. A linear layer sees all that the network can see (visible_pixels).
    """
    rows, field, jump = [], 1, 1
    visible = int(visible_pixels(model, shape).any(dim=0).sum())
    x = torch.zeros(1, *shape)
    training = model.training
    model.eval()
    for layer in model:
        with torch.no_grad():
            x = layer(x)
        macs = 0
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel, stride = int(torch.tensor(layer.kernel_size).max()), int(torch.tensor(layer.stride).max())
            field, jump = field + (kernel - 1) * jump, jump * stride
        if isinstance(layer, nn.Conv2d):
            macs = layer.weight.numel() * x.shape[2] * x.shape[3]
        elif isinstance(layer, nn.Linear):
            macs, field = layer.weight.numel(), visible
        rows.append(
            {
                "layer": describe(layer),
                "output": " x ".join(map(str, x.shape[1:])),
                "parameters": parameters(layer),
                "multiply-adds": macs,
                "receptive field": min(field, shape[-1]),
            }
        )
    model.train(training)
    return pd.DataFrame(rows)


def with_total(table: pd.DataFrame, label: str = "total") -> pd.DataFrame:
    """The convolutions, poolings and linear layers of a layer table, and a last row that adds up all its layers."""
    kept = table[table["layer"].str.contains("Conv|Pool|Linear")]
    total = {"layer": label, "output": "", **table[["parameters", "multiply-adds"]].sum()}
    return pd.concat([kept, pd.DataFrame([total])], ignore_index=True)


def visible_pixels(model: nn.Module, shape: tuple[int, ...] = (3, 32, 32)) -> torch.Tensor:
    """Which pixels can change the logits at all: (h, w) booleans, from the gradients at 64 random images."""
    x = torch.randn(64, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    training = model.training
    (gradient,) = torch.autograd.grad(model.eval()(x).square().sum(), x)
    model.train(training)
    return gradient.abs().amax(dim=(0, 1)) > 0


def describe(layer: nn.Module) -> str:
    """A layer in a few words, for tables."""
    match layer:
        case nn.Conv2d():
            size = "x".join(map(str, layer.kernel_size))
            padding = f", padding {layer.padding[0]}" if layer.padding[0] else ""
            return f"Conv {size}, {layer.in_channels}-{layer.out_channels}{padding}"
        case nn.Linear():
            return f"Linear {layer.in_features}-{layer.out_features}"
        case nn.Dropout():
            return f"Dropout {layer.p}"
        case nn.MaxPool2d():
            return f"MaxPool {layer.kernel_size}x{layer.kernel_size}"
        case _:
            return type(layer).__name__.removesuffix("2d")


def parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def linear_share(model: nn.Sequential) -> float:
    """The share of the trainable parameters that linear layers hold."""
    return sum(parameters(layer) for layer in model if isinstance(layer, nn.Linear)) / parameters(model)


def macs(model: nn.Sequential) -> int:
    """Multiply-accumulates of one image in the forward pass (convolutions and linear layers)."""
    return int(layer_table(model)["multiply-adds"].sum())
