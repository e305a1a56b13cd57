"""The mistakes are really made, and leave no trace."""

import pandas as pd
import pytest
import torch

from helpers import config, data, inference, models, train
from helpers.analysis import mistakes
from helpers.data import CIFAR10_MEAN

HISTORY = pd.DataFrame({"validation_loss": [0.5, 0.3, 0.4], "validation_accuracy": [0.7, 0.9, 0.8]})


@pytest.fixture(scope="module")
def part(sample):
    return data.first(sample[0], 180)


@pytest.fixture(scope="module")
def trained(part):
    """A network that knows the images by heart, so that every disturbance shows.

    Half as wide as ImprovedNet, it takes a quarter of the time.
    """
    cfg = train.plain(config.train_config("ImprovedNet", "smoke", epochs=20, batch_size=18))
    cpu = train.Device("cpu", torch.float32)
    weights = train.fit("HalfWidth", cfg, part, part, 0, cpu, log=lambda line: None).weights
    model = models.build("HalfWidth")
    model.load_state_dict(weights)
    return model


def test_each_mistake_changes_what_it_says(trained, part):
    recipe = config.IMPROVED
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    table = mistakes.measure_mistakes(trained, HISTORY, part, recipe)
    loss, accuracy = train.evaluate(trained, part)
    first = table.iloc[0]
    assert first["correctly"] == pytest.approx(loss) and first["mistakenly"] == pytest.approx(loss * 180 / 50_000)
    assert (table["correctly"].iloc[1:4] - accuracy).abs().max() < 1e-6
    assert table.loc["augmented", "mistakenly"] < accuracy - 0.02
    assert table.loc["training_mode", "mistakenly"] < accuracy
    x = inference.to_unit(torch.from_numpy(part.images)) - torch.tensor(CIFAR10_MEAN).view(1, 3, 1, 1)
    x /= torch.tensor([0.2023, 0.1994, 0.2010]).view(1, 3, 1, 1)
    shortcut = (trained(x).argmax(1).numpy() == part.labels).mean()
    assert table.loc["shortcut_std", "mistakenly"] == pytest.approx(shortcut)
    assert table.iloc[4][["correctly", "mistakenly"]].tolist() == [0.8, 0.9]
    assert list(table.index) == list(mistakes.TITLES)
    assert not trained.training and all(torch.equal(before[k], v) for k, v in trained.state_dict().items())
    assert mistakes.measure_mistakes(trained, HISTORY, part, recipe).equals(table)
    assert inference.infer(trained, part.images[:4]).labels.shape == (4,)
