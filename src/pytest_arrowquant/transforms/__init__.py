"""What happens around a quantizer: smoothing, rotation, and ranges of activations over time."""

from .basis import Identity, Transform
from .equalization import Equalized, equalization_scale, equalize
from .rotation import Rotation
from .smoothing import Smoothing
from .spatial import SmoothingSearch, smooth
from .time_aware import ActivationQuantizer, time_groups

__all__ = [
    "ActivationQuantizer",
    "Equalized",
    "Identity",
    "Rotation",
    "Smoothing",
    "SmoothingSearch",
    "Transform",
    "equalization_scale",
    "equalize",
    "smooth",
    "time_groups",
]
