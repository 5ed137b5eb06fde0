"""Is it still the product of the reference photo. A part of pipeline/checks/fidelity.py."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.protocol import ImageBatch
from pipeline.checks.references import Embedder
from pipeline.errors import SetupError
from pipeline.generate.prepare import fitted
from pipeline.images import RgbImage
from pipeline.request import Input, Request

CENTRE = 0.625
"""Of width and height: the cut-out around the middle, where a product is and a scene is not."""
_KEPT = 4096
"""Photos whose embeddings are remembered; beyond that the oldest go."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


class ReferencePhotos:
    """Cosines between images and their items' photos, by one model. Threads may share it."""

    def __init__(self, embedder: Embedder, picture: Callable[[str], RgbImage] | None):
        """`picture` gives a photo's pixels by the SHA-256 of its file."""
        self._embedder = embedder
        self._picture = picture
        self._known: OrderedDict[tuple[str, int, int], NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def cosines(self, batch: ImageBatch) -> list[tuple[Input, NDArray[np.float32]] | None]:
        """For each image its photo, and the cosines, float32 [2], of all of it and of its middle.

        None for an image whose request has no photo. Both sides are cut alike: the photo as
        generation fitted it, the image without the borders that outpainting added.

        Raises SetupError when a photo cannot be had, ImageRefused when it is broken.
        """
        photos = [reference_photo(request) for request in batch.requests]
        with_photo = [index for index, photo in enumerate(photos) if photo]
        found: list[tuple[Input, NDArray[np.float32]] | None] = [None] * len(batch)
        if not with_photo:
            return found
        boxes = {index: _photo_box(batch.requests[index], batch.images) for index in with_photo}
        of_images = self._of_images(batch, boxes)
        for index, box in boxes.items():
            photo = photos[index]
            if photo is not None:
                left, top, right, bottom = box
                of_photo = self._of_photo(photo, right - left, bottom - top)
                found[index] = photo, (of_images[index] * of_photo).sum(axis=1)
        return found

    def _of_images(
        self, batch: ImageBatch, boxes: dict[int, Box]
    ) -> dict[int, NDArray[np.float32]]:
        """Embeddings of the whole and of the middle of each image that has a box, [2, D]."""
        height, width = batch.images.shape[1:3]
        cuts = {index: batch.images[index, b:d, a:c] for index, (a, b, c, d) in boxes.items()}
        uncut = [index for index, box in boxes.items() if box == (0, 0, width, height)]
        # The whole image's embedding is there already where another check has asked for it.
        whole = {index: batch.embedding(self._embedder)[index] for index in uncut}
        others = [index for index in boxes if index not in whole]
        if others:
            rows = self._embedder.images([cuts[index] for index in others])
            whole |= dict(zip(others, rows, strict=True))
        middles = self._embedder.images([_middle(cuts[index]) for index in boxes])
        return {
            index: np.stack([whole[index], middle])
            for index, middle in zip(boxes, middles, strict=True)
        }

    def _of_photo(self, photo: Input, width: int, height: int) -> NDArray[np.float32]:
        """Embeddings of the whole and of the middle of a photo at a size, [2, D]."""
        key = (photo.sha256, width, height)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        if self._picture is None:
            raise SetupError(
                f"the reference photo {photo.name!r} cannot be read: this run keeps no input "
                f"pictures; take `reference` out of the policy's fidelity check"
            )
        whole = fitted(self._picture(photo.sha256), width, height)
        embedded = self._embedder.images([whole, _middle(whole)])
        with self._lock:
            self._known[key] = embedded
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return embedded


def reference_photo(request: Request) -> Input | None:
    """The picture from outside that the first step to have one starts from; None: no step has.

    Masks, depth and control pictures say where things are, not which product it is.
    """
    outside = (
        given
        for step in request.chain
        for given in step.inputs
        if given.role == "image" and given.source != "step"
    )
    return next(outside, None)


def _photo_box(request: Request, images: NDArray[np.uint8]) -> Box:
    """Where the photo lies in the finished images [N, H, W, 3]: all but what outpainting added."""
    left, top, right, bottom = 0.0, 0.0, 1.0, 1.0
    for step in request.chain:
        if step.region and step.region.kind == "border":
            west, north, east, south = step.region.box
            wide, high = step.width - west - east, step.height - north - south
            left, right = ((west + share * wide) / step.width for share in (left, right))
            top, bottom = ((north + share * high) / step.height for share in (top, bottom))
    height, width = images.shape[1:3]
    x, y = round(left * width), round(top * height)
    return x, y, max(round(right * width), x + 1), max(round(bottom * height), y + 1)


def _middle(picture: RgbImage) -> RgbImage:
    height, width = picture.shape[:2]
    high, wide = (max(round(side * CENTRE), 1) for side in (height, width))
    top, left = (height - high) // 2, (width - wide) // 2
    return picture[top : top + high, left : left + wide]
