"""Killed at any moment, out of disk, or damaged in any byte: work goes on, and nothing wrong is believed.

`make test` takes a sample; the marker torture (`make torture`) repeats it hundreds of times.
"""

import contextlib
import functools
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from helpers import config, data, runs, train
from helpers.commands import experiments, predict, verify
from helpers.errors import BadInput, Problem
from helpers.report import publish

CPU = train.Device("cpu", torch.float32)
# A process that is started in the background ignores Ctrl-C, and so do its children: Python then
# sets no handler of its own.
HEAR_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
TRAIN = """
import sys, torch
from pathlib import Path
from helpers import config, data, runs, train
from helpers.errors import exit_cleanly
network, epochs, store = sys.argv[1:]
torch.set_num_threads(1)
changes = {"epochs": int(epochs), "batch_size": 60}
with exit_cleanly("Stopped. The same command goes on."):
    runs.train_run(network, config.train_config(network, "smoke", **changes), "smoke", 0,
                   train.Device("cpu", torch.float32), data.train_validation("smoke"), Path(store))
"""


EPOCHS = 16  # enough to be killed in twice


def run(code, *arguments, cache, **options):
    environment = {**os.environ, "CIFAR10_REPORT_CACHE": str(cache), "PYTHONPATH": str(config.ROOT)}
    command = [sys.executable, "-c", HEAR_CTRL_C + code, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def start(network, folder, within="{}", epochs=EPOCHS):
    return run(within.format(TRAIN), network, epochs, folder / "runs", cache=folder / "cache")


def next_epoch(process):
    """Read what a training prints until an epoch is finished; returns whether it has gone on from an earlier one."""
    printed = process.stdout.readline()
    gone_on = "going on after epoch" in printed
    if gone_on:
        process.stdout.readline()
    return gone_on


def result(folder):
    """What training has made, but for times and dates."""
    (stored,) = (folder / "runs").glob("*-*")
    run = runs.load(stored)  # verifies every file
    weights = (stored / "weights.safetensors").read_bytes()
    return weights, run.first_losses, run.history.drop(columns="seconds").to_dict("records"), run.record["best_epoch"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a network comes to when nothing happens to its training."""

    @functools.cache
    def train_once(network, epochs=EPOCHS):
        folder = tmp_path_factory.mktemp(network)
        assert start(network, folder, epochs=epochs).wait() == 0
        return result(folder)

    return train_once


def kill_while_writing(process, folder):
    """Wait for a file that is being written, then kill."""
    while process.poll() is None:
        if list((folder / "cache").rglob("*.partial")) or list((folder / "runs").glob(".*")):
            process.send_signal(signal.SIGKILL)
            return
        time.sleep(0.0005)


def kill_some_time_later(process, rng):
    """Wait for up to a tenth of a second, then kill."""
    time.sleep(rng.random() * 0.1)
    process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("network", "epochs", "kills"),
    [
        ("BaselineNet", EPOCHS, 2),
        pytest.param("BaselineNet", 60, 30, marks=pytest.mark.torture),
        pytest.param("ImprovedNet", 20, 30, marks=pytest.mark.torture),
    ],
)
def test_a_killed_training_goes_on_to_the_same_bits(undisturbed, network, epochs, kills, tmp_path):
    disturbed = tmp_path / "disturbed"
    rng, gone_on = random.Random(0), 0
    for i in range(kills):
        for left in disturbed.rglob("*.partial"):
            left.unlink()  # by the last kill: it is not to be taken for a file that is being written now
        process = start(network, disturbed, epochs=epochs)
        gone_on += next_epoch(process)
        kill_while_writing(process, disturbed) if i % 2 else kill_some_time_later(process, rng)
        process.communicate()
        if list((disturbed / "runs").glob("[!.]*-*")):
            break  # finished before the kill
    else:
        process = start(network, disturbed, epochs=epochs)
        gone_on += next_epoch(process)
        process.communicate()
        assert process.returncode == 0
    assert gone_on >= min(kills, 5) - 1
    assert result(disturbed) == undisturbed(network, epochs)


def test_ctrl_c_saves_and_says_how_to_go_on(undisturbed, tmp_path):
    process = start("BaselineNet", tmp_path)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130 and said == "\nStopped. The same command goes on.\n"
    process = start("BaselineNet", tmp_path)
    assert next_epoch(process)
    process.communicate()
    assert result(tmp_path) == undisturbed("BaselineNet")


# ---- Disks


def full_after(size):
    """Code in a process that cannot write files of more bytes: a disk that is full."""
    return f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n{{}}"


@pytest.mark.parametrize("size", [10_000, pytest.param(300_000, marks=pytest.mark.torture)])
def test_a_full_disk_is_one_line_and_no_harm(undisturbed, tmp_path, size):
    process = start("BaselineNet", tmp_path, full_after(size))
    _, said = process.communicate()
    assert process.returncode == 1 and said.endswith(".pt: File too large.\n") and said.count("\n") == 1
    assert not list(tmp_path.rglob("*.partial"))
    start("BaselineNet", tmp_path).communicate()
    assert result(tmp_path) == undisturbed("BaselineNet")


# Root writes where nobody may; this code does without that: CAP_DAC_OVERRIDE (1) is dropped (24) from what the Python
# that comes next may have, see capabilities(7).
AS_EVERYONE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-c", '''{}''', *sys.argv[1:]])
"""


@pytest.fixture
def read_only(tmp_path):
    folder = tmp_path / "read only"
    folder.mkdir(mode=0o555)
    if run(AS_EVERYONE.format("open('x', 'w')"), cache=tmp_path, cwd=folder).wait() == 0:
        pytest.skip("this user writes everywhere")
    return folder


def test_a_read_only_folder_is_one_line(read_only, tmp_path):
    process = start("BaselineNet", read_only, AS_EVERYONE)
    _, said = process.communicate()
    assert process.returncode == 1 and said.endswith(": Permission denied.\n") and said.count("\n") == 1
    project(tmp_path / "project", 1)
    process = make(tmp_path / "project", read_only / "out", AS_EVERYONE)
    _, said = process.communicate()
    assert process.returncode == 1 and ": Permission denied." in said and "Traceback" not in said
    assert list(read_only.iterdir()) == []


# ---- Reports


def project(folder, generation):
    """A notebook whose report shows a number."""
    folder.mkdir(exist_ok=True)
    record = (
        'content = {"settings": {"profile": profile, "seed": 0, "changes": {}}, "numbers": {"x": x}}\n'
        'display({"application/json": content}, raw=True, metadata={"results": True})'
    )
    cells = [f"x = {generation}", record, 'print("generation", x)']
    parameters = new_code_cell('profile = "full"', metadata={"tags": ["parameters"]})
    whole = new_notebook(cells=[parameters, *(new_code_cell(cell) for cell in cells)])
    nbformat.write(whole, folder / "01_only.ipynb")


REPORT = """
import sys
from pathlib import Path
from helpers.report import __main__, publish
print("ready", flush=True)
publish.META = Path(sys.argv.pop(1))
__main__.main(sys.argv[1:])
"""


def make(folder, output, within="{}"):
    meta = folder / "meta.yaml"
    meta.write_text('title: T\nsubtitle: S\ndate: D\nlang: en-GB\nabstract: "x = {01_only[x]}"\nprovenance: P\n')
    return run(
        within.format(REPORT),
        meta,
        "--profile",
        "smoke",
        "--notebooks",
        folder,
        "--output",
        output,
        cache=folder / "cache",
        start_new_session=True,
    )


def generation(output):
    """Of which generation a report is; an assertion fails if its files do not belong together or are not whole."""
    x = json.loads((output / "results.json").read_text())["01_only"]["x"]
    html, pdf = (output / "report.html").read_text(), (output / "report.pdf").read_bytes()
    assert f"\nx = {x}\n" in html and html.rstrip().endswith("</html>") and pdf.rstrip().endswith(b"%%EOF")
    assert f"generation {x}" in (output / "notebooks" / "01_only.ipynb").read_text()
    return x


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The report of generation 0, and how many seconds it takes."""
    folder = tmp_path_factory.mktemp("first")
    project(folder, 0)
    process = make(folder, folder / "out")
    process.stdout.readline()
    began = time.monotonic()
    assert process.wait() == 0
    return folder / "out", time.monotonic() - began


@pytest.mark.parametrize(
    ("end", "times"),
    [
        (signal.SIGINT, 1),
        *(pytest.param(end, 10, marks=pytest.mark.torture) for end in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)),
    ],
)
def test_a_report_that_is_stopped_leaves_a_whole_one(first, tmp_path, end, times):
    output, rng = tmp_path / "out", random.Random(0)
    before, usual = first
    shutil.copytree(before, output)
    for i in range(1, times + 1):
        project(tmp_path, i)
        process = make(tmp_path, output)
        process.stdout.readline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.random() * 1.1 * usual)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, end)  # as a terminal does
        _, said = process.communicate()
        if process.returncode == 130:
            assert "Traceback" not in said and said.endswith("was not replaced.\n")
        else:
            assert process.returncode in (0, -end)  # finished, or stopped without a chance to speak
        if not (output / ".ready").exists():
            assert generation(output) <= i
    assert make(tmp_path, output).wait() == 0 and generation(output) == times
    assert sorted(path.name for path in output.iterdir()) == ["notebooks", "report.html", "report.pdf", "results.json"]


@pytest.mark.parametrize("size", [20_000, pytest.param(500, marks=pytest.mark.torture)])
def test_a_report_on_a_full_disk_is_as_it_was(first, tmp_path, size):
    output = tmp_path / "out"
    shutil.copytree(first[0], output)
    project(tmp_path, 1)
    process = make(tmp_path, output, full_after(size))
    _, said = process.communicate()
    assert process.returncode == 1 and "Traceback" not in said and "was not replaced" in said
    assert generation(output) == 0 and not (output / ".building").exists()


# ---- Damage


def flip(content, rng):
    i = rng.randrange(len(content))
    return content[:i] + bytes([content[i] ^ 1 << rng.randrange(8)]) + content[i + 1 :]


def cut(content, rng):
    return content[: rng.randrange(len(content))]


def swap(content, rng):
    """Two stretches change places."""
    a, b, c = sorted(rng.sample(range(len(content) + 1), 3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def nothing(content, rng):
    return b""


DAMAGES = (flip, cut, swap, nothing)
TIMES = [3, pytest.param(200, marks=pytest.mark.torture)]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A stored run with weights, history and logits."""
    folder = tmp_path_factory.mktemp("stored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "CACHE", folder / "cache")
        cfg = config.train_config("BaselineNet", "smoke", batch_size=60)
        trial = experiments.Trial("it", "It", "BaselineNet", cfg, 0)
        experiment = experiments.Experiment([trial], images=120, keep_logits=True, profile="smoke")
        _, run = experiments.train_trial(trial, experiment, "cpu")
        (path,) = (folder / "cache" / "runs").iterdir()
        history = {"first_losses": run.first_losses, "epochs": run.history.to_dict("records")}
        logits = {name: torch.from_numpy(z) for name, z in run.logits.items()}
        runs.save(path, run.record, history, weights=runs.load(path).model.state_dict(), logits=logits)
    return path


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["run.json", "history.json", "weights.safetensors", "logits.safetensors"])
def test_damage_to_a_stored_run_is_named(stored, name, damage, times):
    path, rng = stored / name, random.Random(times)
    whole, before = path.read_bytes(), runs.load(stored).record
    try:
        for _ in range(times):
            damaged = damage(whole, rng)
            if damaged == whole:
                continue
            path.write_bytes(damaged)
            try:
                assert runs.load(stored).record == before and name == "run.json"  # only space between values changed
            except runs.CorruptRun as error:
                named = name in str(error) or name == "run.json"  # whose damaged digests point to other files
                assert named and str(error).count("\n") == 0
    finally:
        path.write_bytes(whole)
    assert runs.load(stored).record == before


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_a_resume_state_is_named(damage, times, tmp_path, sample, tiny):
    path, rng = tmp_path / "state.pt", random.Random(times)
    part = data.first(sample[0], 20)
    train.fit("BaselineNet", tiny, part, part, 0, CPU, path, log=str)
    whole = path.read_bytes()
    for _ in range(times):
        damaged = damage(whole, rng)
        path.write_bytes(damaged)
        if damaged != whole:
            with pytest.raises(Problem, match=f"the resume state {path} is damaged: delete it to start from scratch."):
                train.fit("BaselineNet", tiny, part, part, 0, CPU, path, log=str)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_the_images_is_named(damage, times, tmp_path, monkeypatch):
    """A small archive of the cache's form; its digests are those of its own arrays."""
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40, dtype=np.uint8) % 10
    monkeypatch.setattr(data, "DATA", tmp_path)
    monkeypatch.setattr(data, "DIGESTS", {"test": (data.array_digest(images), data.array_digest(labels))})
    path, rng = tmp_path / "test.npz", random.Random(times)
    np.savez(path, images=images, labels=labels)
    whole = path.read_bytes()
    for _ in range(times):
        path.write_bytes(damage(whole, rng))
        try:
            part = data._read_cache("test")
        except data.DataError as error:
            assert str(error).count("\n") == 0 and "test" in str(error)
        else:
            assert (part.images == images).all() and (part.labels == labels).all()  # a byte that means nothing


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_the_results_is_named(damage, times, tmp_path):
    """Or, where a digit has become another one, the number does not verify, unless it is one of the last digits."""
    path, rng = tmp_path / "results.json", random.Random(times)
    whole = (config.ROOT / "reports" / "results.json").read_bytes()
    true = json.loads(whole)
    numbers_of = verify.flat(true)
    for _ in range(times):
        path.write_bytes(damage(whole, rng))
        try:
            values = publish.read_results(path)
        except Problem as error:
            assert str(error).startswith(f"{path} is damaged")
            continue
        if not verify.compare(values, true):
            numbers = [(value, numbers_of[key]) for key, value in verify.flat(values).items() if type(value) is float]
            assert len(numbers) > 300 and all(abs(a - b) <= max(0.01, 0.01 * abs(b)) for a, b in numbers)


# ---- Input


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_a_damaged_picture_is_read_or_refused_in_one_line(kind, damage, times, tmp_path):
    rng, content, path = random.Random(times), io.BytesIO(), tmp_path / "picture"
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(content, kind)
    for _ in range(times):
        path.write_bytes(damage(content.getvalue(), rng))
        try:
            assert predict.read_image(path).shape == (32, 32, 3)
        except predict.NotAnImage as error:
            assert str(error).startswith(f"{path}: ") and str(error).endswith(".") and "\n" not in str(error)


NASTY = [
    -1,
    0,
    1,
    2.5,
    1e308,
    -1e308,
    10**400,
    2**63,
    float("nan"),
    float("inf"),
    True,
    None,
    "",
    "0.1",
    "sgd",
    "cosine",
    [],
    {},
    b"1",
    1 + 2j,
    np.float32(0.1),
    np.int64(3),
]


@pytest.mark.parametrize("times", [30, pytest.param(1000, marks=pytest.mark.torture)])
def test_any_configuration_trains_or_is_refused_in_one_line(times, sample):
    rng, part = random.Random(times), data.first(sample[0], 20)
    settings = [field.name for field in config.fields(config.TrainConfig) if field.name != "epochs"]
    for _ in range(times):
        changes = {name: rng.choice(NASTY) for name in rng.sample(settings, rng.choice([1, 1, 2]))}
        try:
            cfg = config.train_config("BaselineNet", "smoke", epochs=1, **changes)
            trained = train.fit("BaselineNet", cfg, part, part, 0, CPU, log=str)
            assert trained.weights and all(tensor.isfinite().all() for tensor in trained.weights.values())
        except Problem as error:
            assert any(name in str(error) for name in changes) and "\n" not in str(error), (changes, error)
    for value in NASTY:
        for field in ("epochs", "network", "profile"):
            if not (field == "epochs" and type(value) is int and value == 1):
                with pytest.raises(BadInput, match=field):
                    config.train_config(**{"network": "BaselineNet", "profile": "smoke", field: value})
