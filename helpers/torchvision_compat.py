"""torchvision, also where its compiled extension does not load.

The torchvision of the ordinary package index is compiled for CUDA. Beside a torch built for the CPU its extension
cannot be loaded; torchvision itself tolerates that, but then registers shape functions for two operators that only the
extension defines, and its import dies with `operator torchvision::nms does not exist`. Data sets and transforms need
neither operator, so here the two are declared, without an implementation, before torchvision is imported. Where the
extension loads, nothing is declared.

    from helpers.torchvision_compat import datasets, transforms_v2
"""

import importlib.machinery
import importlib.util

import torch

# The operators named in torchvision/_meta_registrations.py by `register_fake`, as torchvision's C++ defines them.
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def extension_loads() -> bool:
    """Whether torchvision's compiled operators (torchvision/_C.so) exist and load beside this torch."""
    spec = importlib.util.find_spec("torchvision")
    folders = spec.submodule_search_locations if spec else None
    extension = importlib.machinery.PathFinder.find_spec("_C", folders)
    if extension is None:
        return False
    try:
        torch.ops.load_library(extension.origin)  # torchvision loads it again, which costs and changes nothing
    except OSError:
        return False
    return True


if not extension_loads():
    _library = torch.library.Library("torchvision", "FRAGMENT")  # kept: the declarations live as long as it does
    for _operator in OPERATORS:
        _library.define(_operator)

from torchvision import datasets  # noqa: E402
from torchvision.transforms import v2 as transforms_v2  # noqa: E402

__all__ = ["datasets", "transforms_v2"]
