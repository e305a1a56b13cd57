"""The command line: every kind of file is classified or gets one clear line, and the numbers are infer()'s."""

import dataclasses
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from helpers import config, data, metrics, models, runs, train
from helpers.commands import predict
from helpers.inference import infer


def publish(network):
    """Store a network with untrained weights as the published run; return it."""
    cfg = config.train_config(network, "full")
    digests = {"training": "0", "validation": "0"}
    model = models.build(network, seed=1)
    record = {"network": network, "config": dataclasses.asdict(cfg), "recipe": train.RECIPE, "seed": 0, "data": digests}
    folder = config.PUBLISHED / f"{network}-{runs.identity(network, cfg, 0, digests)}"
    history = {"first_losses": [2.3], "epochs": [{"epoch": 1}]}
    runs.save(folder, record, history, weights=model.state_dict())
    return model


@pytest.fixture
def model():
    return publish("ImprovedNet")


@pytest.fixture
def picture(tmp_path):
    """The first image of the sample as PNG: its path and its pixels."""
    pixels = data._load("test", "smoke").images[0]
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    return tmp_path / "cat.png", pixels


def test_without_a_published_run_one_line_says_what_to_do(picture, capsys):
    with pytest.raises(runs.TrainingNeeded, match="^there is no trained ImprovedNet in .*: run `make retrain`.$"):
        predict.main([str(picture[0])])
    assert capsys.readouterr() == ("", "")


def test_a_damaged_published_run_is_one_line(model, picture, capsys):
    (folder,) = config.PUBLISHED.iterdir()
    (folder / "weights.safetensors").write_bytes(b"")
    with pytest.raises(runs.CorruptRun, match="^Improved.*weights.safetensors is missing or differs.*$"):
        predict.main([str(picture[0])])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("network", config.NETWORKS)
def test_the_prediction_is_that_of_infer(network, picture, capsys):
    path, pixels = picture
    expected = infer(publish(network), pixels[None])
    assert predict.main([str(path), "--json", "--network", network]) == 0
    said = json.loads(capsys.readouterr().out)
    order = np.argsort(-expected.probabilities[0])[:3]
    assert said["file"] == str(path) and said["class"] == config.CLASSES[expected.labels[0]]
    assert said["confidence"] == said["best"][0]["probability"] == round(float(expected.confidence[0]), 6)
    assert said["best"] == [
        {"class": config.CLASSES[k], "probability": round(float(expected.probabilities[0, k]), 6)} for k in order
    ]


def test_a_cifar_image_is_read_pixel_by_pixel(picture):
    path, pixels = picture
    assert np.array_equal(predict.read_image(path), pixels)
    assert predict.read_image(path).flags.writeable  # PyTorch would warn, on the user's terminal


@pytest.mark.filterwarnings("error")
def test_the_line_for_people(model, picture, capsys):
    path, pixels = picture
    assert predict.main([str(path)]) == 0
    out, err = capsys.readouterr()
    best = predict.three_best(infer(model, pixels[None]).probabilities[0])
    ranked = ", ".join(f"{entry['class']} {entry['probability']:.1%}" for entry in best)
    assert out == f"{path}: {best[0]['class']}, confidence {best[0]['probability']:.1%} (best three: {ranked})\n"
    assert err == ""


def test_a_folder_is_taken_file_by_file(model, picture, capsys):
    path, _ = picture
    (path.parent / "notes.txt").write_text("not an image, nor asked for")
    assert predict.main([str(path)]) == 0
    alone = capsys.readouterr().out
    assert predict.main([str(path.parent)]) == 0
    assert capsys.readouterr().out == alone


def test_the_confidence_is_at_the_published_temperature(model, picture, capsys):
    path, pixels = picture
    values = {"05_confidence_analysis": {"confidence": {"ImprovedNet": {"temperature": 0.5}}}}
    (config.PUBLISHED.parent / "results.json").write_text(json.dumps(values))
    assert predict.main([str(path), "--json"]) == 0
    expected = metrics.softmax(infer(model, pixels[None]).logits / 0.5).max()
    said = json.loads(capsys.readouterr().out)
    assert said["confidence"] == pytest.approx(expected, abs=1e-6) and said["temperature"] == 0.5


# ---- What can be read


def test_the_square_in_the_middle_or_the_whole(tmp_path):
    wide = np.zeros((64, 128, 3), dtype=np.uint8)
    wide[:, 32:96] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (predict.read_image(tmp_path / "wide.png", crop=True) == 255).all()
    assert predict.read_image(tmp_path / "wide.png").mean() == pytest.approx(127.5, abs=1)


def colour(size=(32, 32), mode="RGB", value=(200, 30, 60)):
    return Image.new("RGB", size, value).convert(mode, palette=Image.Palette.ADAPTIVE)


def test_unusual_sizes(tmp_path):
    for size in ((1, 1), (20000, 1), (1, 20000), (33, 31)):
        colour(size).save(tmp_path / "x.png")
        assert (predict.read_image(tmp_path / "x.png") == (200, 30, 60)).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr"])
def test_colour_modes(tmp_path, mode):
    path = tmp_path / ("x.jpg" if mode in ("CMYK", "YCbCr") else "x.png")
    colour(mode=mode).save(path, quality=100)
    seen = predict.read_image(path)
    assert seen.shape == (32, 32, 3) and seen.dtype == np.uint8
    np.testing.assert_allclose(seen, np.full((32, 32, 3), (200, 30, 60)), atol=3)


def test_greyscale_and_bilevel(tmp_path):
    Image.new("L", (32, 32), 77).save(tmp_path / "grey.png")
    assert (predict.read_image(tmp_path / "grey.png") == 77).all()
    Image.new("1", (32, 32), 1).save(tmp_path / "bilevel.png")
    assert (predict.read_image(tmp_path / "bilevel.png") == 255).all()


@pytest.mark.parametrize(
    ("name", "values", "white"),
    [("sixteen.png", np.uint16, 65535), ("float.tif", np.float32, 1), ("bytes.tif", np.float32, 255)],
)
def test_more_than_eight_bits_are_scaled(tmp_path, name, values, white):
    ramp = np.linspace(0, white, 32 * 32).reshape(32, 32).astype(values)
    Image.fromarray(ramp).save(tmp_path / name)
    np.testing.assert_allclose(predict.read_image(tmp_path / name)[..., 0], ramp / white * 255, atol=1)


def test_a_dark_sixteen_bit_image_stays_dark(tmp_path):
    Image.fromarray(np.full((32, 32), 200, dtype=np.uint16)).save(tmp_path / "dark.png")
    assert (predict.read_image(tmp_path / "dark.png") == 0).all()


def test_transparency_is_white(tmp_path):
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "rgba.png")
    Image.new("LA", (32, 32), (0, 0)).save(tmp_path / "grey.png")
    colour(mode="P").save(tmp_path / "palette.png", transparency=0)
    colour(mode="P").save(tmp_path / "bytes.png", transparency=b"\x00\xff")
    for path in tmp_path.glob("*.png"):
        assert (predict.read_image(path) == 255).all(), path.name
    Image.new("RGBA", (32, 32), (0, 0, 0, 51)).save(tmp_path / "rgba.png")
    assert (predict.read_image(tmp_path / "rgba.png") == 204).all()


def test_the_first_frame_of_an_animation(tmp_path):
    red, blue = colour(value=(255, 0, 0)), colour(value=(0, 0, 255))
    red.save(tmp_path / "x.gif", save_all=True, append_images=[blue, red])
    assert (predict.read_image(tmp_path / "x.gif") == (255, 0, 0)).all()


def test_the_camera_says_which_way_is_up(picture):
    path, pixels = picture
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    Image.fromarray(np.rot90(pixels).copy()).save(path, exif=exif)
    assert np.array_equal(predict.read_image(path), pixels)


# ---- What cannot


def png_claiming(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT", b"IEND")
    body = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.fixture
def bad(tmp_path):
    """Files that cannot be classified, and what is to be said of each."""
    colour((400, 400)).save(tmp_path / "whole.jpg")
    jpeg = (tmp_path / "whole.jpg").read_bytes()
    contents = {
        "text.png": (b"this is not a picture", "Pillow cannot read this as an image"),
        "empty.png": (b"", "Pillow cannot read this as an image"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "the image is damaged or cannot be read (image file is truncated"),
        "hollow.png": (png_claiming(32, 32), "the image is damaged or cannot be read"),
        "big.png": (png_claiming(10_000, 10_001), "10000 x 10001 pixels are too many; make it smaller"),
        "photo.HEIC": (b"not for Pillow", "Pillow cannot read HEIC photos; export it as JPEG"),
        "bomb.png": (png_claiming(100_000, 100_000), "exceeds limit"),
    }
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    return {str(tmp_path / name): says for name, (_, says) in contents.items()} | {
        str(tmp_path / "nowhere.png"): "there is no such file.",
        str(tmp_path / ("long" * 100)): "File name too long",
        str(tmp_path / "folder.png"): "this folder holds no images.",
    }


def test_bad_files_get_one_line_each_and_the_others_still_run(model, picture, bad, capsys, recwarn):
    good = str(picture[0])
    assert predict.main([good, *bad, good]) == 1
    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()] == [good, good]
    lines = err.splitlines()
    assert len(lines) == len(bad)
    for line, (path, says) in zip(lines, bad.items(), strict=True):
        assert line.startswith(f"{path}: ") and says in line, line
    assert not recwarn.list


def test_json_is_one_object_a_line_also_for_bad_files(model, picture, bad, capsys):
    good = str(picture[0])
    assert predict.main(["--json", *bad, good]) == 1
    out, err = capsys.readouterr()
    said = [json.loads(line) for line in out.splitlines()]
    assert [entry["file"] for entry in said] == [*bad, good]
    assert all("error" in entry for entry in said[:-1]) and set(said[-1]) == {
        "file",
        "class",
        "confidence",
        "temperature",
        "best",
    }
    assert err == ""


def test_no_image_named(capsys):
    with pytest.raises(SystemExit) as caught:
        predict.main([])
    assert caught.value.code == 2 and "IMAGE" in capsys.readouterr().err
