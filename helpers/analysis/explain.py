"""What a network has learnt: Grad-CAM with a check of its maps, a linear probe of each stage, and what is easy."""

import copy
import warnings

import numpy as np
import scipy.stats
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from helpers.analysis.robustness import renewed
from helpers.data import Part
from helpers.inference import infer, normalise, to_unit

with warnings.catch_warnings():  # captum asks for a widget library that nothing here needs
    warnings.filterwarnings("ignore", message="IProgress not found")
    from captum.attr import LayerAttribution, LayerGradCam

GRID = 4  # features are averaged over a grid of at most this many places a side
RIDGE = 100.0  # penalty of the probe: a hundredth of an image for each of 10,000, enough for correlated features


def last_block(model: nn.Sequential) -> nn.Module:
    """The ReLU or GELU that ends the last convolution block: the last one before the last max-pooling. Else ValueError.

    Its maps are the last with a place in the image; before the pooling there are four times as many places.
    """
    layers = list(model)
    while layers and not isinstance(layers[-1], nn.MaxPool2d):
        layers.pop()
    relus = [layer for layer in layers if isinstance(layer, nn.ReLU | nn.GELU)]
    if not relus:
        raise ValueError("Grad-CAM needs an nn.Sequential with a GELU or ReLU before its last max-pooling.")
    return relus[-1]


def grad_cam(model: nn.Sequential, images: np.ndarray, classes: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """Heat maps (n, 32, 32) in [0, 1]: which places speak for the class (Selvaraju et al. 2017, Grad-CAM).

    images: (n, 32, 32, 3) uint8 RGB; classes: (n,) integers, the class to explain in each, predicted or not.
    ReLU(sum_k a_k A_k), where A_k are the maps of the last convolution block and a_k the mean gradient of the class's
    logit in A_k, enlarged bilinearly and divided by the maximum. A map without evidence for the class is all zero.
    Leaves the model in eval mode and its gradients as they were. Raises ValueError unless there is one class an image.
    """
    classes = np.asarray(classes)
    if len(images) == 0 or classes.shape != (len(images),) or classes.dtype.kind not in "iu":
        raise ValueError(f"{len(images)} images need as many classes, not {classes.dtype} of shape {classes.shape}.")
    device = next(model.parameters()).device
    cam = LayerGradCam(model.eval(), last_block(model))
    pixels = torch.tensor(np.ascontiguousarray(images)).split(batch_size)
    targets = torch.from_numpy(classes.astype(np.int64)).split(batch_size)
    maps = []
    for batch, target in zip(pixels, targets, strict=True):
        coarse = cam.attribute(normalise(to_unit(batch.to(device))), target.to(device), relu_attributions=True)
        maps.append(LayerAttribution.interpolate(coarse.detach(), images.shape[1:3], "bilinear")[:, 0].cpu())
    heat = torch.cat(maps).numpy()
    peak = heat.max(axis=(1, 2), keepdims=True)
    return heat / np.where(peak > 0, peak, 1)


def randomised(model: nn.Sequential, images: np.ndarray, seed: int = 0) -> nn.Sequential:
    """A copy, in eval mode, that has forgotten everything: all layers reset to PyTorch's own random initialisation.

    Its batch normalisation has the statistics of these images: with mean 0 and variance 1, as initialised, many of its
    maps are empty. Maps that look the same for it show edges of the image, not what the network learnt (Adebayo
    et al. 2018).
    """
    forgetful = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):  # the random numbers of the caller go on as if nothing had happened
        torch.manual_seed(seed)
        for layer in forgetful.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()  # type: ignore[operator]
    return renewed(forgetful, images)


def map_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation (n,) in [-1, 1] of each map in a with its partner in b, both (n, h, w).

    NaN where one of the two is constant, for instance all zero. Raises ValueError for different shapes.
    """
    if a.shape != b.shape:
        raise ValueError(f"Maps can only be compared with as many of the same size, not {a.shape} with {b.shape}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.ConstantInputWarning)  # NaN says it
        return np.array([scipy.stats.spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)])


def sanity_check(model: nn.Sequential, images: np.ndarray) -> dict[str, np.ndarray]:
    """What else gives the maps of the most probable classes: their map_similarity (n,) with four kinds of maps.

    "random": of three networks of random weights (3 n,), of the same images and classes. "second class": of the class
    that comes second. "other image": of the image before. "mean": the mean of all maps.
    """
    best = np.argsort(-infer(model, images).logits, axis=1)
    maps, second = (grad_cam(model, images, best[:, rank]) for rank in (0, 1))
    forgetful = [grad_cam(randomised(model, images, seed), images, best[:, 0]) for seed in range(3)]
    return {
        "random": np.concatenate([map_similarity(maps, each) for each in forgetful]),
        "second class": map_similarity(maps, second),
        "other image": map_similarity(maps, np.roll(maps, 1, axis=0)),
        "mean": map_similarity(maps, np.broadcast_to(maps.mean(0), maps.shape)),
    }


# ---------------------------------------------------------------- linear probe


@torch.inference_mode()
def stage_features(model: nn.Sequential, images: np.ndarray, batch_size: int = 500) -> list[np.ndarray]:
    """Features of (n, 32, 32, 3) uint8 images as they are and after each max-pooling, each (n, channels x places)."""
    model.eval()
    collected = []
    for batch in torch.tensor(np.ascontiguousarray(images)).split(batch_size):
        x = normalise(to_unit(batch))
        stages = [x]
        for layer in model:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                stages.append(x)
        pooled = [F.adaptive_avg_pool2d(maps, min(GRID, maps.shape[-1])).flatten(1).numpy() for maps in stages]
        collected.append(pooled)
    return [np.concatenate(parts) for parts in zip(*collected, strict=True)]


def linear_probe(model: nn.Sequential, training: Part, held_out: Part) -> dict[str, float]:
    """Held-out accuracy of a linear classifier on the "pixels" and on the features after "stage_1", "stage_2", ...

    After Alain and Bengio (2017), but by ridge regression to the ten classes on standardised features, which is faster
    than a softmax.
    """
    fitted_on, scored_on = stage_features(model, training.images), stage_features(model, held_out.images)
    probes = (make_pipeline(StandardScaler(), RidgeClassifier(alpha=RIDGE)) for _ in fitted_on)
    accuracies = [
        float(probe.fit(fit, training.labels).score(score, held_out.labels))
        for probe, fit, score in zip(probes, fitted_on, scored_on, strict=True)
    ]
    return {f"stage_{i}" if i else "pixels": accuracy for i, accuracy in enumerate(accuracies)}


def pair_logits(model: nn.Sequential, training: Part, images: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    """Logits (n, 10) of a specialist for two classes that starts from what a network has learnt; 0 for other classes.

    It is the classifier of linear_probe on the features of the last stage, fitted on the training images of the pair.
    """
    known = np.isin(training.labels, pair)
    judge = make_pipeline(StandardScaler(), RidgeClassifier(alpha=RIDGE))
    judge.fit(stage_features(model, training.images[known])[-1], training.labels[known])
    logits = np.zeros((len(images), 10))
    logits[:, max(pair)] = judge.decision_function(stage_features(model, images)[-1])
    return logits


def thumbnails(images: np.ndarray, side: int = 8) -> np.ndarray:
    """Images (n, 32, 32, 3) made coarse, as rows (n, 3 side^2) of the means of squares of pixels, 0 to 1."""
    n, size, _, channels = images.shape
    square = size // side
    blocks = images.reshape(n, side, square, side, square, channels)
    return blocks.mean(axis=(2, 4)).reshape(n, -1) / 255


def thumbnail_logits(training: Part, validation: Part) -> np.ndarray:
    """Logits (n, 10) of a linear classifier that sees only thumbnails: what colours and coarse outlines tell.

    It is linear discriminant analysis, with the covariance shrunk as by Ledoit and Wolf (2004).
    """
    judge = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    judge.fit(thumbnails(training.images), training.labels)
    return judge.decision_function(thumbnails(validation.images))
