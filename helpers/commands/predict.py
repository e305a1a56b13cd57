"""Classify image files: `python -m helpers.commands.predict IMAGE...` prints class and confidence."""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from helpers import runs
from helpers.config import CLASSES, NETWORKS
from helpers.errors import Problem, exit_cleanly
from helpers.inference import Prediction, infer

MAX_PIXELS = 100_000_000  # a larger picture is refused before it is decoded


class NotAnImage(Problem):
    """A file that cannot be classified, and why."""


def read_image(path: str | Path) -> np.ndarray:
    """Any file that Pillow reads -> (32, 32, 3) uint8 RGB: the whole picture, squeezed to 32 x 32 if it is larger.

    The first frame of an animation; transparency on white; turned as the camera says.
    Raises NotAnImage with one clear sentence.
    """
    try:
        if not Path(path).exists():
            raise NotAnImage(f"{path}: there is no such file.")
        if Path(path).is_dir():
            raise NotAnImage(f"{path}: this is a folder, not an image; name the files in it.")
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise NotAnImage(f"{path}: {image.width} x {image.height} pixels are too many; make it smaller.")
            return to_rgb(ImageOps.exif_transpose(image))
    except NotAnImage:
        raise
    except UnidentifiedImageError:
        raise NotAnImage(f"{path}: Pillow cannot read this as an image.") from None
    except Exception as error:  # each of Pillow's decoders has its own ways to fail
        raise NotAnImage(f"{path}: the image is damaged or cannot be read ({error}).") from None


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


def three_best(prediction: Prediction, row: int) -> list[dict]:
    """The three most probable classes of one image, best first."""
    order = np.argsort(-prediction.probabilities[row], kind="stable")[:3]
    return [{"class": CLASSES[k], "probability": round(float(prediction.probabilities[row, k]), 6)} for k in order]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.commands.predict", description=__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="any picture; it is squeezed to 32 x 32 pixels")
    parser.add_argument("--network", choices=NETWORKS, default="ImprovedNet")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for machines")
    options = parser.parse_args(arguments)
    model = runs.published(options.network).model
    failed = False
    for path in options.images:
        try:
            prediction = infer(model, read_image(path)[None])
        except NotAnImage as error:
            failed = True
            print(
                json.dumps({"file": path, "error": str(error)}) if options.json else error,
                file=sys.stdout if options.json else sys.stderr,
            )
            continue
        best = three_best(prediction, 0)
        if options.json:
            confidence = best[0]["probability"]
            print(json.dumps({"file": path, "class": best[0]["class"], "confidence": confidence, "best": best}))
        else:
            ranked = ", ".join(f"{entry['class']} {entry['probability']:.1%}" for entry in best)
            print(f"{path}: {best[0]['class']}, confidence {best[0]['probability']:.1%} (best three: {ranked})")
    return 1 if failed else 0


if __name__ == "__main__":
    with exit_cleanly():
        sys.exit(main())
