"""What is done to pictures that are copied: the fixed set that copy detection is measured with.

Each transform maps (picture, seed, scene) to a picture, the same for the same arguments; `picture`
is uint8 RGB [H, W, 3], or RGBA [H, W, 4] with the subject's outline as alpha; `scene` is a uint8
RGB picture to paste into and to cover with. Used by bench/copying.py.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.uint8]
Transform = Callable[[Picture, int, Picture], Picture]


def pasted(picture: Picture, seed: int, scene: Picture) -> Picture:
    """The picture at 30 to 60 % of the scene's sides, anywhere wholly inside the scene.

    With an alpha channel, every second seed pastes the subject cut out along it, the bounding box
    of its outline scaled so that the longer side is 30 to 60 %.
    """
    rng = np.random.default_rng((seed, 1))
    height, width = scene.shape[:2]
    share = rng.uniform(0.3, 0.6)
    layer = Image.fromarray(picture)
    if layer.mode == "RGBA" and seed % 2:
        box = layer.getchannel("A").point(lambda level: 255 * (level > 127)).getbbox()
        layer = layer.crop(box)
        longest = max(layer.width / width, layer.height / height)
        size = (share * layer.width / longest, share * layer.height / longest)
    else:
        layer = layer.convert("RGB")
        size = (share * width, share * height)
    layer = layer.resize((max(1, round(size[0])), max(1, round(size[1]))), Image.Resampling.BICUBIC)
    whole = Image.fromarray(scene)
    place = (
        int(rng.integers(width - layer.width + 1)),
        int(rng.integers(height - layer.height + 1)),
    )
    whole.paste(layer, place, layer if layer.mode == "RGBA" else None)
    return np.asarray(whole)


def cropped(picture: Picture, seed: int, scene: Picture) -> Picture:
    """A window of 55 to 80 % of each side, anywhere, resized to the picture's own size."""
    rng = np.random.default_rng((seed, 2))
    height, width = picture.shape[:2]
    tall, wide = (max(1, round(rng.uniform(0.55, 0.8) * side)) for side in (height, width))
    top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
    window = Image.fromarray(_rgb(picture)[top : top + tall, left : left + wide])
    return np.asarray(window.resize((width, height), Image.Resampling.BICUBIC))


def recoloured(picture: Picture, seed: int, scene: Picture) -> Picture:
    """Hue turned by 30° to 330°, then saturation × 0.5 to 1.5, brightness × 0.8 to 1.2.

    Every fifth seed is grey instead (BT.601 luma).
    """
    rng = np.random.default_rng((seed, 3))
    turn, saturation, brightness = rng.uniform((30, 0.5, 0.8), (330, 1.5, 1.2))
    image = Image.fromarray(_rgb(picture))
    if seed % 5 == 0:
        return np.asarray(image.convert("L").convert("RGB"))
    hsv = np.asarray(image.convert("HSV")).astype(np.float64)
    hsv[..., 0] = (hsv[..., 0] + turn / 360 * 256) % 256
    hsv[..., 1:] = np.minimum(hsv[..., 1:] * (saturation, brightness), 255)
    turned = Image.frombytes("HSV", image.size, hsv.astype(np.uint8).tobytes())
    return np.asarray(turned.convert("RGB"))


def mirrored(picture: Picture, seed: int, scene: Picture) -> Picture:
    """Left and right exchanged."""
    return np.ascontiguousarray(_rgb(picture)[:, ::-1])


def reencoded(picture: Picture, seed: int, scene: Picture) -> Picture:
    """JPEG of quality 10 to 50, colours at half resolution (Pillow's 4:2:0)."""
    rng = np.random.default_rng((seed, 4))
    buffer = io.BytesIO()
    quality = int(rng.integers(10, 51))
    Image.fromarray(_rgb(picture)).save(buffer, "JPEG", quality=quality, subsampling=2)
    return np.asarray(Image.open(buffer))


def blurred(picture: Picture, seed: int, scene: Picture) -> Picture:
    """Gaussian blur; its standard deviation is 1 to 2.5 % of the longer side."""
    rng = np.random.default_rng((seed, 5))
    radius = rng.uniform(0.01, 0.025) * max(picture.shape[:2])
    return np.asarray(Image.fromarray(_rgb(picture)).filter(ImageFilter.GaussianBlur(radius)))


def covered(picture: Picture, seed: int, scene: Picture) -> Picture:
    """A box over 10 to 30 % of the area, anywhere: of one colour, or (odd seeds) of the scene.

    Its sides are in a ratio of 1:2 to 2:1, as far as they fit.
    """
    rng = np.random.default_rng((seed, 6))
    result = _rgb(picture).copy()
    height, width = result.shape[:2]
    area, ratio = rng.uniform(0.1, 0.3), np.exp(rng.uniform(-np.log(2), np.log(2)))
    tall = min(height, max(1, round(height * np.sqrt(area * ratio))))
    wide = min(width, max(1, round(width * np.sqrt(area / ratio))))
    top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
    box: Picture = np.broadcast_to(rng.integers(0, 256, 3).astype(np.uint8), (tall, wide, 3))
    if seed % 2:
        box = np.asarray(Image.fromarray(scene).resize((wide, tall), Image.Resampling.BICUBIC))
    result[top : top + tall, left : left + wide] = box
    return result


TRANSFORMS: dict[str, Transform] = {
    "pasted": pasted,
    "cropped": cropped,
    "recoloured": recoloured,
    "mirrored": mirrored,
    "re-encoded": reencoded,
    "blurred": blurred,
    "partly covered": covered,
}


def _rgb(picture: Picture) -> Picture:
    return np.ascontiguousarray(picture[..., :3])
