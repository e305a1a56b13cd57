"""Learning from another network's logits."""

import dataclasses

import numpy as np
import pytest
import scipy.special
import torch

from helpers import config, models, runs, train
from helpers.errors import BadInput

CPU = train.Device("cpu", torch.float32)
LESSON = {"teacher": "FastNet", "teacher_share": 0.5, "temperature": 4.0}


def silent(line):
    pass


def test_the_loss_of_a_taught_batch():
    rng = np.random.default_rng(0)
    own, taught, y = rng.normal(size=(7, 10)), rng.normal(size=(7, 10)), rng.integers(10, size=7)
    cfg = dataclasses.replace(config.IMPROVED, label_smoothing=0.1, teacher="FastNet", teacher_share=0.3, temperature=3)
    targets = 0.9 * np.eye(10)[y] + 0.01
    alone = -(targets * scipy.special.log_softmax(own, axis=1)).sum(axis=1).mean()
    soft = scipy.special.softmax(taught / 3, axis=1)
    lesson = -9 * (soft * scipy.special.log_softmax(own / 3, axis=1)).sum(axis=1).mean()
    logits, labels = torch.tensor(own), torch.tensor(y)
    assert train.batch_loss(logits, labels, cfg).item() == pytest.approx(alone)
    loss = train.batch_loss(logits, labels, cfg, torch.tensor(taught))
    assert loss.item() == pytest.approx(0.7 * alone + 0.3 * lesson)


@pytest.mark.parametrize("change", [{}, {"teacher_share": 0.6}, {"temperature": 2.0}])
def test_teacher_share_and_temperature_show_in_the_losses(sample, tiny, change):
    tiny = dataclasses.replace(tiny, epochs=1)
    teacher = models.build("BaselineNet", seed=5).eval()
    first = "teacher" if not change else "recipe"
    before = dataclasses.replace(tiny, **LESSON) if change else tiny
    after = dataclasses.replace(tiny, **LESSON | change)
    losses = [
        train.fit("BaselineNet", cfg, *sample, 0, CPU, log=silent, teacher=teacher if cfg.teacher else None).history
        for cfg in (before, after)
    ]
    assert losses[0][0]["validation_loss"] != losses[1][0]["validation_loss"], first


def test_a_missing_teacher_is_trained_first_and_kept(sample, tiny, monkeypatch, tmp_path):
    monkeypatch.setitem(config.TEACHERS, "FastNet", ("BaselineNet", dataclasses.replace(tiny, epochs=1)))
    cfg = dataclasses.replace(tiny, epochs=1, **LESSON)
    store = tmp_path / "runs"
    run = runs.train_run("BaselineNet", cfg, "smoke", 0, CPU, sample, store, quiet=True)
    teachers = [path for path in store.iterdir() if path.name != f"BaselineNet-{run_id(run)}"]
    assert len(teachers) == 1 and runs.load(teachers[0]).cfg.epochs == 1
    assert run.cfg == cfg  # as it is read back
    before = teachers[0].stat().st_mtime_ns
    runs.train_run("BaselineNet", cfg, "smoke", 1, CPU, sample, store, quiet=True)
    assert teachers[0].stat().st_mtime_ns == before


def run_id(run):
    return runs.identity("BaselineNet", run.cfg, run.record["seed"], run.record["data"])


def test_settings_of_a_lesson_are_checked():
    for change, says in (
        ({"teacher": "Socrates"}, "teacher must be one of FastNet, longer, hard, augmented, or empty, not 'Socrates'."),
        ({"teacher": "hard"}, "teacher and teacher_share go together: set both, or neither."),
        ({"teacher_share": 0.5}, "teacher and teacher_share go together: set both, or neither."),
        ({"teacher": "hard", "teacher_share": 1.5}, "teacher_share must lie between 0 and 1, not 1.5."),
        ({"temperature": 0}, "temperature must be more than 0."),
    ):
        with pytest.raises(BadInput, match="^" + says.replace(".", r"\.")):
            config.train_config("ImprovedNet", "full", **change)


def test_older_runs_keep_their_names():
    assert not LESSON.keys() & config.to_record(config.IMPROVED).keys()
