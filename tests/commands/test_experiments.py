"""Experiments: every trial once, side by side here or on a cluster, resumable, and stored without weights."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from dask.distributed import LocalCluster

from helpers import config, data, metrics, runs, train
from helpers.commands import experiments
from helpers.errors import Problem
from helpers.commands.experiments import Experiment, Trial

SHORT = dataclasses.replace(config.BASELINE, epochs=2, batch_size=60)
TINY = Experiment(
    [Trial("as it is", "BaselineNet", SHORT, 0), Trial("again", "BaselineNet", SHORT, 1),
     Trial("fast", "BaselineNet", dataclasses.replace(SHORT, peak_lr=0.1), 0)],
    images=120, keep_logits=True, profile="smoke",
)


@pytest.fixture
def store(monkeypatch, tmp_path):
    """Where the experiment `tiny` is stored. Other processes take the cache folder from the environment."""
    monkeypatch.setenv("CIFAR10_REPORT_CACHE", str(config.CACHE))
    monkeypatch.setattr(config, "EXPERIMENTS", tmp_path / "experiments")
    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", TINY)
    return tmp_path / "experiments" / "tiny"


def run_experiment(store, jobs=1):
    return list(experiments.run_experiment(TINY, store, "cpu", jobs))


def contents(store):
    """All that is stored but for times and dates."""
    kept = {}
    for folder in store.iterdir():
        run = runs.load(folder)
        kept[folder.name] = (run.history.drop(columns="seconds").values.tolist(), run.first_losses,
                             {name: z.tolist() for name, z in run.logits.items()})
    return kept


def test_trials_are_stored_with_logits_and_without_weights(store):
    lines = conduct(store)
    assert lines[0] == "0 of 3 runs are stored already" and len(lines) == 4 and lines[1].startswith("1 of 3: as it is")
    for trial, run in experiments.stored("tiny"):
        assert run.model is None and run.record["seed"] == trial.seed
        test = data.test("smoke")
        assert run.logits["test"].shape == (len(test.labels), 10)
        assert run.record["scores"]["test"] == metrics.summary(run.logits["test"], test.labels)
        nll = run.record["scores"]["validation"]["nll"]
        assert nll == pytest.approx(experiments.at_checkpoint(run)["validation_loss"], rel=1e-5)
        some = data.first(data.train_validation("smoke")[1], 1_000)
        assert run.record["cues"]["nothing"] == metrics.accuracy(run.logits["validation"][:1_000], some.labels)
    table = experiments.table("tiny")
    assert table["label"].tolist() == ["as it is", "again", "fast"]
    assert np.allclose(table["gap"], table["training"] - table["accuracy"])


def test_what_is_stored_is_not_trained_again(store, monkeypatch):
    conduct(store)
    before = {path: path.read_bytes() for path in store.rglob("*.*") if path.is_file()}
    monkeypatch.setattr(experiments, "train_trial", None)
    assert conduct(store) == ["3 of 3 runs are stored already"]
    assert {path: path.read_bytes() for path in store.rglob("*.*") if path.is_file()} == before


def test_processes_and_a_dask_cluster_give_what_one_process_gives(store, tmp_path, monkeypatch):
    conduct(store)
    expected = contents(store)
    for place in ("processes", "cluster"):
        monkeypatch.setenv("CIFAR10_REPORT_CACHE", str(tmp_path / place))
        elsewhere = tmp_path / f"{place}-store"
        if place == "processes":
            with experiments.place(None):
                list(experiments.run_experiment(TINY, elsewhere, "cpu", 2))
        else:
            with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
                with experiments.place(cluster.scheduler_address):
                    list(experiments.run_experiment(TINY, elsewhere, "cpu"))
        trained = {path.parent.name for path in (tmp_path / place).rglob("weights.safetensors")}
        assert trained == expected.keys()  # the other processes did the work
        assert contents(elsewhere) == expected


def test_workers_that_would_share_random_numbers_are_refused():
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None, processes=False) as cluster:
        with pytest.raises(Problem, match="several threads: start it with `--nthreads 1`"):
            with experiments.place(cluster.scheduler_address):
                pass


def test_runs_of_another_size_or_recipe_do_not_count(store, monkeypatch):
    conduct(store)
    for change in ({"images": 200}, {"keep_logits": False}):
        monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", TINY._replace(**change))
        if "images" in change:
            with pytest.raises(runs.TrainingNeeded, match="3 of the 3 runs"):
                experiments.stored("tiny")
        else:
            assert len(experiments.stored("tiny")) == 3
    monkeypatch.setattr(train, "RECIPE", train.RECIPE + 1)
    with pytest.raises(runs.TrainingNeeded, match="3 of the 3 runs"):
        experiments.stored("tiny")


def test_an_interrupted_experiment_keeps_what_is_done_and_goes_on(store, monkeypatch):
    save, epochs = train._save, []

    def save_and_stop(path, *arguments):
        save(path, *arguments)
        epochs.append(path.stem)
        if len(epochs) == 3:  # the second trial after its first epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "_save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        conduct(store)
    assert len(list(store.iterdir())) == 1
    assert conduct(store)[0] == "1 of 3 runs are stored already"
    assert len(epochs) == 6 and len(experiments.stored("tiny")) == 3


def test_a_trial_that_diverges_does_not_stop_the_others(store, monkeypatch):
    hot = TINY.trials[1]._replace(config=dataclasses.replace(SHORT, peak_lr=1e6))
    work = experiments.run_experiment(TINY._replace(trials=[TINY.trials[0], hot, TINY.trials[2]]), store, "cpu", 1)
    with pytest.raises(Problem, match=f"^1 of 3 .* {hot.label}, seed {hot.seed}: .* not finite in epoch"):
        list(work)
    assert len(list(store.iterdir())) == 2


def test_runs_of_an_earlier_version_go_when_the_new_ones_are_whole(store):
    old = TINY._replace(trials=[Trial("old", "BaselineNet", dataclasses.replace(SHORT, epochs=1), 0)])
    list(experiments.run_experiment(old, store, "cpu", 1))
    (superseded,) = store.iterdir()
    work = experiments.run_experiment(TINY, store, "cpu", 1)
    next(work), next(work)
    assert superseded.exists()
    list(work)
    assert not superseded.exists() and len(list(store.iterdir())) == 3


def test_damaged_logits_are_refused(store):
    conduct(store)
    logits = next(store.glob("*/logits.safetensors"))
    logits.write_bytes(logits.read_bytes()[:-4] + b"1234")
    with pytest.raises(runs.CorruptRun, match="logits.safetensors is missing or differs"):
        experiments.stored("tiny")


def test_a_missing_run_is_named(store):
    with pytest.raises(runs.TrainingNeeded, match="3 of the 3 runs .* 'as it is' with seed 0: run `make tiny`"):
        experiments.stored("tiny")


def test_differences_from_the_first_label():
    rows = pd.DataFrame({"label": list("aaabbb"), "accuracy": [0.60, 0.62, 0.64, 0.70, 0.71, 0.75]})
    (change,) = effects.against_first(rows, "accuracy").itertuples()
    t_test = scipy.stats.ttest_ind(rows["accuracy"][3:], rows["accuracy"][:3])  # what Dunnett's is for two labels
    assert change.Index == "b" and change.difference == pytest.approx(0.10)
    assert (change.low, change.high) == pytest.approx(tuple(t_test.confidence_interval()), abs=1e-4)
    more = pd.concat([rows, rows[3:].assign(label="c")])
    assert effects.against_first(more, "accuracy").loc["b", "low"] < change.low  # two comparisons, wider intervals


def test_every_trial_is_another_run():
    for experiment in experiments.EXPERIMENTS.values():
        assert len({trial[1:] for trial in experiment.trials}) == len(experiment.trials)


@pytest.mark.parametrize(("arguments", "says"), [
    (["tiny"], "invalid choice: 'tiny'"),
    (["seeds", "--device", "tpu"], "invalid choice: 'tpu'"),
    (["seeds", "--cluster", "tcp://127.0.0.1:1"], "no Dask scheduler answers at tcp://127.0.0.1:1"),
])
def test_the_command_fails_with_one_line(arguments, says):
    command = [sys.executable, "-m", "helpers.commands.experiments", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=config.ROOT, env=os.environ)
    assert done.returncode != 0 and says in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
