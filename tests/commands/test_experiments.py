"""Experiments: every trial once, side by side here or on a cluster, resumable, and stored without weights."""

import dataclasses
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from dask.distributed import LocalCluster

from helpers import config, data, metrics, runs, train
from helpers.analysis import tables
from helpers.commands import experiments
from helpers.commands.experiments import Experiment, Trial
from helpers.errors import Problem

SHORT = dataclasses.replace(config.BASELINE, epochs=2, batch_size=60)
TINY = Experiment(
    [
        Trial("plain", "as it is", "BaselineNet", SHORT, 0),
        Trial("again", "another seed", "BaselineNet", SHORT, 1),
        Trial("fast", "faster", "BaselineNet", dataclasses.replace(SHORT, peak_lr=0.1), 0),
    ],
    images=120,
    keep_logits=True,
    profile="smoke",
)


@pytest.fixture
def store(monkeypatch, tmp_path):
    """Where the experiment `tiny` is stored. Other processes take the cache folder from the environment."""
    monkeypatch.setenv("CIFAR10_REPORT_CACHE", str(config.CACHE))
    monkeypatch.setattr(config, "EXPERIMENTS", tmp_path / "experiments")
    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", TINY)
    return tmp_path / "experiments" / "tiny"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which TINY has been stored."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "CACHE", folder / "cache")
        run_experiment(folder / "tiny")
    return folder / "tiny"


@pytest.fixture
def finished(store, trained):
    """A copy of it in the place of `store`, which a test may damage."""
    shutil.copytree(trained, store)
    return store


def run_experiment(store, jobs=1):
    return list(experiments.run_experiment(TINY, store, "cpu", jobs))


def contents(store):
    """All that is stored but for times and dates."""
    kept = {}
    for folder in store.glob("*-*"):
        run = runs.load_results(folder)
        kept[folder.name] = (
            run.history.drop(columns="seconds").values.tolist(),
            run.first_losses,
            {name: z.tolist() for name, z in run.logits.items()},
        )
    return kept


def test_trials_are_stored_with_logits_and_without_weights(store):
    lines = run_experiment(store)
    assert lines[0] == "0 of 3 runs are stored already" and len(lines) == 4 and lines[1].startswith("1 of 3: as it is")
    for trial, run in experiments.stored("tiny"):
        assert not hasattr(run, "model") and run.record["seed"] == trial.seed
        test = data.test("smoke")
        assert run.logits["test"].shape == (len(test.labels), 10)
        assert run.record["scores"]["test"] == metrics.summary(run.logits["test"], test.labels)
        nll = run.record["scores"]["validation"]["nll"]
        assert nll == pytest.approx(experiments.at_checkpoint(run)["validation_loss"], rel=1e-5)
        some = data.first(data.train_validation("smoke")[1], 1_000)
        assert run.record["cues"]["nothing"] == metrics.accuracy(run.logits["validation"][:1_000], some.labels)
    table = experiments.table("tiny")
    assert table["key"].tolist() == ["plain", "again", "fast"]
    assert table["title"].tolist() == ["as it is", "another seed", "faster"]
    assert np.allclose(table["gap"], table["training"] - table["accuracy"])


def test_an_experiment_on_some_classes_trains_on_these_and_is_scored_on_all(sample):
    pair = TINY._replace(trials=TINY.trials[:1], classes=(3, 5), images=200)
    training, validation = experiments.parts_of(pair)
    assert set(training.labels) == set(validation.labels) == {3, 5}
    assert (training.images == sample[0].images[:200][np.isin(sample[0].labels[:200], (3, 5))]).all()
    _, found = experiments.train_trial(pair.trials[0], pair, "cpu")
    assert found.record["images"] == len(training.labels)
    assert {name: len(z) for name, z in found.logits.items()} == {"validation": 40, "test": 200}


def test_wrong_labels_are_wrong_and_as_many_as_asked_for(sample):
    wrong = experiments.with_wrong_labels(sample[0], 0.4)
    changed = wrong.labels != sample[0].labels
    assert changed.sum() == round(0.4 * len(changed)) and (wrong.images == sample[0].images).all()
    assert set(wrong.labels) <= set(range(10)) and wrong.labels.dtype == sample[0].labels.dtype
    assert (experiments.with_wrong_labels(sample[0], 0.4).labels == wrong.labels).all()


def test_classes_become_rarer_by_a_constant_factor():
    part = data.Part(np.arange(10_000), np.tile(np.arange(10), 1_000))
    some = experiments.imbalanced(part, 100)
    counts = np.bincount(some.labels)
    assert counts.tolist() == [1000, 599, 359, 215, 129, 77, 46, 28, 17, 10]
    assert (part.labels[some.images] == some.labels).all() and (np.diff(some.images) > 0).all()
    assert experiments.class_shares(100)[[0, -1]].tolist() == pytest.approx([1, 0.01])


def test_an_experiment_changes_the_training_images_alone(sample):
    changed = TINY._replace(wrong_labels=0.5, imbalance=4)
    training, validation = experiments.parts_of(changed)
    assert len(training.labels) < 120 and (validation.labels == sample[1].labels).all()
    found = experiments.train_trial(TINY.trials[0], changed, "cpu")[1]
    assert found.record["images"] == len(training.labels)


def test_every_architecture_stands_beside_the_others_with_both_recipes(monkeypatch):
    monkeypatch.setattr(config, "PUBLISHED", config.ROOT / "reports" / "runs")
    rows = experiments.crossed()
    seeds = rows.groupby("key")["seed"].agg(sorted)
    assert len(seeds) == 2 * len(experiments.ARCHITECTURES)
    assert seeds.pop("BaselineNet, BaselineNet") == [0, 1, 2, 3, 4] and all(found == [0, 1, 2] for found in seeds)
    published = rows.iloc[1]
    run = runs.published("ImprovedNet")
    assert published["accuracy"] == (run.logits["test"].argmax(1) == run.logits["test_labels"]).mean()
    assert rows["noise"].isna().sum() == 2 and rows["noise"].max() < 0.6  # the published runs have none
    shown = tables.by_recipe(rows)
    step = 100 * rows.groupby("key")["accuracy"].mean()
    step = step["WideBaseline, BaselineNet"] - step["BaselineNet, BaselineNet"]
    assert shown.loc["four times as wide", ("recipe of BaselineNet", "step")] == f"{step:+.1f}"
    assert shown.iloc[[0, -1]]["recipe of ImprovedNet", "step"].tolist() == ["", ""]


def test_the_published_run_is_the_first_seed_at_full_length(monkeypatch):
    monkeypatch.setattr(config, "PUBLISHED", config.ROOT / "reports" / "runs")
    rows = experiments.at_full_length()
    published = runs.published("ImprovedNet")
    first = rows.iloc[0]
    right = published.logits["test"].argmax(1) == published.logits["test_labels"]
    assert first["key"] == "recipe" and first["accuracy"] == right.mean()
    seeds = rows.groupby("key")["seed"].agg(list)
    assert seeds["recipe"] == seeds["no_dropout"] == [0, 1, 2] and seeds["taught"] == seeds["no_smoothing"] == [0, 1]
    stored = {trial.key: run for trial, run in experiments.stored("taught")}
    assert "hard" in stored and "hard" not in set(rows["key"])  # a teacher, not ImprovedNet


def test_confident_mistakes_are_counted_once_each_training_is_corrected(monkeypatch):
    monkeypatch.setattr(config, "PUBLISHED", config.ROOT / "reports" / "runs")
    rows = experiments.confident_mistakes()
    assert rows.groupby("key")["seed"].agg(list).to_dict() == {"recipe": [0, 1, 2], "no_smoothing": [0, 1]}
    published, smoothing = runs.published("ImprovedNet"), 0.05
    p = metrics.softmax(published.logits["test"])
    p = np.maximum(p - smoothing / 10, 0)  # the targets were (1 - 0.05) p + 0.05 / 10
    p /= p.sum(axis=1, keepdims=True)
    sure = p.max(axis=1) > 0.9
    wrong = p.argmax(axis=1) != published.logits["test_labels"]
    assert rows["wrong"].iloc[0] == pytest.approx(wrong[sure].mean())
    plain = experiments.of_key("long", "no_smoothing")[0].logits
    as_trained = metrics.answered(plain["test"], published.logits["test_labels"], 0.9)["risk"]
    assert rows["wrong"].iloc[3] < as_trained  # its temperature is above 1: fewer answers stay above 0.9


def test_what_is_stored_is_not_trained_again(finished, monkeypatch):
    before = {path: path.read_bytes() for path in finished.rglob("*.*") if path.is_file()}
    monkeypatch.setattr(experiments, "train_trial", None)
    assert run_experiment(finished) == ["3 of 3 runs are stored already"]
    assert {path: path.read_bytes() for path in finished.rglob("*.*") if path.is_file()} == before


def test_processes_and_a_dask_cluster_give_what_one_process_gives(finished, tmp_path, monkeypatch):
    expected = contents(finished)
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


def test_a_stored_experiment_is_what_it_was_when_it_was_trained(finished, monkeypatch):
    before = experiments.table("tiny")
    other = Trial("new", "another recipe", "BaselineNet", dataclasses.replace(SHORT, epochs=1), 0)
    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", Experiment([other], images=200))
    monkeypatch.setattr(train, "RECIPE", train.RECIPE + 1)
    assert experiments.table("tiny").equals(before)


def test_an_interrupted_experiment_keeps_what_is_done_and_goes_on(store, monkeypatch):
    save, epochs = train._save, []

    def save_and_stop(path, *arguments):
        save(path, *arguments)
        epochs.append(path.stem)
        if len(epochs) == 3:  # the second trial after its first epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "_save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(store)
    assert len(list(store.glob("*-*"))) == 1
    assert run_experiment(store)[0] == "1 of 3 runs are stored already"
    assert len(epochs) == 6 and len(experiments.stored("tiny")) == 3


def test_a_trial_that_diverges_does_not_stop_the_others(store, monkeypatch):
    hot = TINY.trials[1]._replace(cfg=dataclasses.replace(SHORT, peak_lr=1e6))
    work = experiments.run_experiment(TINY._replace(trials=[TINY.trials[0], hot, TINY.trials[2]]), store, "cpu", 1)
    with pytest.raises(Problem, match=f"^1 of 3 .* {hot.title}, seed {hot.seed}: .* not finite in epoch"):
        list(work)
    assert len(list(store.glob("*-*"))) == 2


def test_runs_of_an_earlier_version_go_when_the_new_ones_are_whole(store):
    old = TINY._replace(trials=[Trial("old", "older", "BaselineNet", dataclasses.replace(SHORT, epochs=1), 0)])
    list(experiments.run_experiment(old, store, "cpu", 1))
    (superseded,) = store.glob("*-*")
    work = experiments.run_experiment(TINY, store, "cpu", 1)
    next(work), next(work)
    assert superseded.exists()
    list(work)
    assert not superseded.exists() and len(list(store.glob("*-*"))) == 3


def test_damaged_logits_are_refused(finished):
    logits = next(finished.glob("*/logits.safetensors"))
    logits.write_bytes(logits.read_bytes()[:-4] + b"1234")
    with pytest.raises(runs.CorruptRun, match="logits.safetensors is missing or differs"):
        experiments.stored("tiny")


def test_what_is_not_stored_is_named(store):
    with pytest.raises(runs.TrainingNeeded, match="the experiment 'tiny' is not stored: run `make tiny`"):
        experiments.stored("tiny")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"trials": [{}]}', "no JSON"])
def test_a_damaged_definition_is_named(finished, text):
    (finished / experiments.DEFINITION).write_text(text)
    with pytest.raises(runs.CorruptRun, match="experiment.json is damaged: restore it"):
        experiments.stored("tiny")


def test_every_trial_is_another_run():
    for experiment in experiments.EXPERIMENTS.values():
        assert len({trial[2:] for trial in experiment.trials}) == len(experiment.trials)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["tiny"], "invalid choice: 'tiny'"), (["seeds", "--device", "tpu"], "invalid choice: 'tpu'")],
)
def test_a_wrong_choice_is_named_in_the_last_line(monkeypatch, capsys, arguments, says):
    monkeypatch.setattr(sys, "argv", ["experiments", *arguments])
    with pytest.raises(SystemExit) as end:
        experiments.main()
    assert end.value.code == 2 and says in capsys.readouterr().err.splitlines()[-1]


def test_the_command_fails_with_one_line():
    arguments = ["seeds", "--cluster", "tcp://127.0.0.1:1"]
    command = [sys.executable, "-m", "helpers.commands.experiments", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=config.ROOT, env=os.environ)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in done.stderr.splitlines()[-1]
