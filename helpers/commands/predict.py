"""Classify image files: `python -m helpers.commands.predict IMAGE...` prints class and confidence.

The images go through the preprocessing of training. The confidence is at the temperature that was
fitted to the validation images.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from helpers import config, metrics, runs
from helpers.config import CLASSES, NETWORKS
from helpers.errors import Problem, exit_cleanly
from helpers.inference import infer

HEIC = (".heic", ".heif")  # photos of many phones
MAX_PIXELS = 100_000_000  # a larger picture is refused before it is decoded


class NotAnImage(Problem):
    """A file that cannot be classified, and why."""


def files_in(path: Path) -> list[Path]:
    """The path itself; of a folder, the files in it whose names end like those of images.

    Raises NotAnImage for a folder that holds none.
    """
    try:
        if not path.is_dir():
            return [path]
    except OSError:  # a name that is too long: read_image says so
        return [path]
    endings = {*Image.registered_extensions(), *HEIC}
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in endings)
    if not found:
        raise NotAnImage(f"{path}: this folder holds no images.")
    return found


def read_image(path: str | Path, crop: bool = False) -> np.ndarray:
    """Any file that Pillow reads -> (32, 32, 3) uint8 RGB.

    crop: take the largest square in the middle; the whole picture is squeezed otherwise. The first
    frame of an animation; transparency on white; turned as the camera says.
    Raises NotAnImage with one clear sentence.
    """
    try:
        if not Path(path).exists():
            raise NotAnImage(f"{path}: there is no such file.")
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise NotAnImage(f"{path}: {image.width} x {image.height} pixels are too many; make it smaller.")
            upright = ImageOps.exif_transpose(image)
            side = min(upright.size)
            return to_rgb(ImageOps.fit(upright, (side, side)) if crop else upright)
    except NotAnImage:
        raise
    except UnidentifiedImageError:
        if Path(path).suffix.lower() in HEIC:
            raise NotAnImage(f"{path}: Pillow cannot read HEIC photos; export it as JPEG and give that file.") from None
        raise NotAnImage(f"{path}: Pillow cannot read this as an image.") from None
    except Exception as error:  # each of Pillow's decoders has its own ways to fail
        raise NotAnImage(f"{path}: the image is damaged or cannot be read ({error}).") from None


def images(named: list[Path], crop: bool) -> Iterator[tuple[Path, np.ndarray | NotAnImage]]:
    """Each file that is named or lies in a named folder, with its pixels or what is wrong with it."""
    for path in named:
        try:
            files = files_in(path)
        except NotAnImage as error:
            yield path, error
            continue
        for file in files:
            try:
                yield file, read_image(file, crop)
            except NotAnImage as error:
                yield file, error


def to_rgb(image: Image.Image) -> np.ndarray:
    """A Pillow image of any mode and size -> (32, 32, 3) uint8 RGB."""
    if image.mode.startswith("I") or image.mode == "F":  # more than 8 bits a pixel: white is 65535, or 255, or 1.0
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        top = 65535 if image.mode.startswith("I;16") or values.max() > 255 else 255 if values.max() > 1 else 1
        image = Image.fromarray((values.clip(0, top) * 255 / top).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    rgb = image.convert("RGB")
    return np.array(rgb if rgb.size == (32, 32) else rgb.resize((32, 32), Image.Resampling.BOX))  # a copy: writable


def published_temperature(network: str) -> float:
    """The temperature that the published report fitted on the validation images; 1 where there is none."""
    try:
        results = json.loads((config.PUBLISHED.parent / "results.json").read_text(encoding="utf-8"))
        return results["05_confidence_analysis"]["confidence"][network]["temperature"]
    except (OSError, ValueError, KeyError):
        return 1.0


def three_best(probabilities: np.ndarray) -> list[dict]:
    """The three most probable classes of one image, (10,) probabilities, best first."""
    order = np.argsort(-probabilities, kind="stable")[:3]
    return [{"class": CLASSES[k], "probability": round(float(probabilities[k]), 6)} for k in order]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.commands.predict", description=__doc__)
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="a picture, or a folder of them; squeezed to 32 x 32 pixels",
    )
    parser.add_argument("--crop", action="store_true", help="take the square in the middle instead of squeezing")
    parser.add_argument("--network", choices=NETWORKS, default="ImprovedNet")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for machines")
    options = parser.parse_args(arguments)
    model, temperature = runs.published(options.network).model, published_temperature(options.network)
    failed = False
    for path, image in images(options.images, options.crop):
        if isinstance(image, NotAnImage):
            failed = True
            print(
                json.dumps({"file": str(path), "error": str(image)}) if options.json else image,
                file=sys.stdout if options.json else sys.stderr,
            )
            continue
        best = three_best(metrics.softmax(infer(model, image[None]).logits / temperature)[0])
        name, confidence = best[0]["class"], best[0]["probability"]
        if options.json:
            said = {"class": name, "confidence": confidence, "temperature": temperature, "best": best}
            print(json.dumps({"file": str(path), **said}))
        else:
            ranked = ", ".join(f"{entry['class']} {entry['probability']:.1%}" for entry in best)
            print(f"{path}: {name}, confidence {confidence:.1%} (best three: {ranked})")
    return 1 if failed else 0


if __name__ == "__main__":
    with exit_cleanly():
        sys.exit(main())
