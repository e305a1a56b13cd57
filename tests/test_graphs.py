"""Steps replayed from a CUDA graph, and what of that can be tested without a GPU."""

import pytest
import torch

from helpers import config, graphs, train


class Graph:
    """What torch.cuda.CUDAGraph does for these tests: whatever was recorded, computed again."""

    def __init__(self, replay):
        self.replay = replay


@pytest.fixture
def recorded(monkeypatch):
    """`graphs.recorded` with recordings that work on a CPU, and the sizes of the batches that were recorded."""
    sizes = []

    def record(step, model, rows, flips):
        sizes.append(len(rows))
        rows, flips = rows.clone(), None if flips is None else flips.clone()
        outputs = step(rows, flips)
        gradients = [parameter.grad.clone() for parameter in model.parameters()]

        def replay():
            for kept, new in zip(outputs, step(rows, flips), strict=True):
                kept.copy_(new)
            for kept, parameter in zip(gradients, model.parameters(), strict=True):
                kept.copy_(parameter.grad)

        return graphs.Recorded(Graph(replay), rows, flips, outputs, gradients)

    monkeypatch.setattr(graphs, "record", record)
    return graphs.recorded, sizes


@pytest.fixture
def model():
    return torch.nn.Linear(1, 1, bias=False)


def step_of(model):
    """The loss is the weight times the sum of the rows, and the number of mirrored ones is counted."""

    def step(rows, flips):
        model.zero_grad()
        loss = model(rows[:, None].float()).sum()
        loss.backward()
        return loss.detach(), flips.sum()

    return step


def test_a_replayed_step_computes_its_own_batch(model, recorded):
    replay, sizes = recorded
    step = replay(step_of(model), model)
    found = []
    for rows in ([1, 2, 3], [4, 5, 6], [7]):
        loss, mirrored = step(torch.tensor(rows), torch.tensor([row > 4 for row in rows]))
        weight = model.weight.item()
        assert loss.item() == pytest.approx(weight * sum(rows)) and mirrored == sum(row > 4 for row in rows)
        assert model.weight.grad.item() == sum(rows)
        found.append(loss)
    assert sizes == [3, 1]  # one recording a size
    assert found[0].item() == pytest.approx(model.weight.item() * 6)  # not overwritten by the second batch


def test_gradients_are_those_of_the_size_that_was_replayed_last(model, recorded):
    step = recorded[0](step_of(model), model)
    flips = torch.zeros(2, dtype=torch.bool)
    step(torch.tensor([1, 2]), flips)
    step(torch.tensor([5]), flips[:1])
    step(torch.tensor([3, 4]), flips)
    assert model.weight.grad.item() == 7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of NVIDIA")
@pytest.mark.parametrize("network", config.NETWORKS)
def test_a_graph_gives_the_losses_of_single_kernels(network, sample, monkeypatch):
    device, cfg = train.pick_device("cuda"), config.train_config(network, "smoke", batch_size=100)
    replayed = train.replay(network, cfg, sample[0], 0, device)
    monkeypatch.setattr(graphs, "recorded", lambda step, model: step)
    assert replayed == pytest.approx(train.replay(network, cfg, sample[0], 0, device), abs=1e-4)
