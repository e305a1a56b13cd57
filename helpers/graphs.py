"""CUDA graphs: on a GPU, record the kernels of one step once and launch them all at once from then on.

A step of ImprovedNet is some 300 small kernels. A GPU computes each in microseconds, so that
launching them one by one from Python would take longer than computing them.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

# What a step computes: from the rows of a batch, and which of them are mirrored (None: drawn in the
# step), its outputs, and gradients in the parameters of a network.
Step = Callable[[Tensor, Tensor | None], tuple[Tensor, ...]]

WARM_UP = 3  # steps before the recording, in which libraries choose their kernels and take memory


class Recorded(NamedTuple):
    """A graph, and the tensors that it reads and writes whenever it is replayed."""

    graph: torch.cuda.CUDAGraph
    rows: Tensor
    flips: Tensor | None
    outputs: tuple[Tensor, ...]
    gradients: list[Tensor | None]


def recorded(step: Step, model: nn.Module) -> Step:
    """The same step, replayed from a graph; one graph is recorded for each size of batch.

    The model, on a CUDA device, and the random generators are left as they were before recording.
    Replayed random numbers follow torch.manual_seed as those of the step itself do.
    """
    graphs: dict[int, Recorded] = {}

    def replay(rows: Tensor, flips: Tensor | None) -> tuple[Tensor, ...]:
        if len(rows) not in graphs:
            graphs[len(rows)] = record(step, model, rows, flips)
        known = graphs[len(rows)]
        known.rows.copy_(rows)
        if known.flips is not None and flips is not None:
            known.flips.copy_(flips)
        known.graph.replay()
        for parameter, gradient in zip(model.parameters(), known.gradients, strict=True):
            parameter.grad = gradient  # graphs of other sizes have theirs elsewhere
        return tuple(output.clone() for output in known.outputs)  # the next replay overwrites them

    return replay


def record(step: Step, model: nn.Module, rows: Tensor, flips: Tensor | None) -> Recorded:
    """Record a step for batches of this size."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.cuda.get_rng_state()
    rows, flips = rows.clone(), None if flips is None else flips.clone()
    side = torch.cuda.Stream()  # the default stream can't be recorded
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            step(rows, flips)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = step(rows, flips)
    gradients = [parameter.grad for parameter in model.parameters()]
    model.load_state_dict(before)  # running statistics
    torch.cuda.set_rng_state(generator)
    return Recorded(graph, rows, flips, outputs, gradients)
