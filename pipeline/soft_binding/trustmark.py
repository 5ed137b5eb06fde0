"""Adobe's TrustMark, for policies that ask for it: the package `trustmark` and its trained weights.

Pixels and a payload in, marked pixels out, and back. Fetches neither package nor weights. Bui,
Agarwal and Collomosse, "TrustMark: Robust Watermarking and Watermark Removal for Arbitrary
Resolution Images" (ICCV 2025).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import SetupError
from pipeline.images import RgbImage
from pipeline.soft_binding.detect import Reading

ALGORITHM = "com.adobe.trustmark.Q"
"""Entry 4 of C2PA's soft binding algorithm list (c2pa-org/softbinding-algorithm-list, 2026-11)."""

_VARIANT = "Q"
_FILES = (f"trustmark_{_VARIANT}.yaml", f"encoder_{_VARIANT}.ckpt", f"decoder_{_VARIANT}.ckpt")
_SCHEMA = 1
"""`BCH_5` of the package's data schema: 61 bits, 35 more correct up to 5 wrong ones."""
_ID_DIGITS = 15
_FIRST = 1 << 4 * _ID_DIGITS
PAYLOADS = range(_FIRST, 2 * _FIRST)
"""61 bits that begin with a one, so that no payload of the embedded watermark is among them."""
_VALUE = re.compile(rf"{_SCHEMA}\*(1[01]{{{4 * _ID_DIGITS}}})")
# The package's error correction keeps its state in the model: one image at a time.
_TURN = threading.RLock()


def payload_of(request_id: str) -> int:
    """The payload that marks the image of a request: a one, and the first 60 bits of its id."""
    return _FIRST | int(request_id[:_ID_DIGITS], 16)


def value_of(payload: int) -> str:
    """A payload as manifests have it: `1*` and 61 binary digits.

    Schema and bits, as the package's own example writes them (adobe/trustmark,
    c2pa/c2pa_watermark_example.py, 2026-11), so that other readers of TrustMark look it up.
    """
    return f"{_SCHEMA}*{payload:b}"


def payload_in(value: str) -> int:
    """The payload that a manifest's value names. Raises ValueError when it is none of ours."""
    found = _VALUE.fullmatch(value)
    if found is None:
        raise ValueError(f"no TrustMark payload of ours: {value[:80]!r}")
    return int(found[1], 2)


def make_ready() -> None:
    """Loads the model, once a process. Raises SetupError that says what to install or fetch."""
    with _TURN:
        _model()


def embed(image: RgbImage, payload: int) -> RgbImage | None:
    """The image with a payload in its pixels; pure white (255) pixels stay as they are.

    None where the payload cannot be read back from them: a manifest must not claim it. On the
    processor, so that the same input gives the same output. Raises SetupError as `make_ready`.
    """
    with _TURN:
        encoded = _model().encode(Image.fromarray(image), f"{payload:b}", MODE="binary")
    marked = np.array(encoded)
    # Marketplaces measure whether a background is pure white.
    marked[(image == 255).all(axis=2)] = 255
    reading = read(marked)
    return marked if reading and reading.payload == payload else None


def read(image: RgbImage) -> Reading | None:
    """What the TrustMark of uint8 [H, W, 3] says; None when there is none of ours.

    Noise gives a payload about once in 4,000 times: it counts when a record has it. Raises
    SetupError as `make_ready`.
    """
    with _TURN:
        bits, found, schema = _model().decode(Image.fromarray(image), MODE="binary")
    if not found or schema != _SCHEMA or int(bits, 2) not in PAYLOADS:
        return None
    return Reading(int(bits, 2))


def _model() -> Any:
    try:
        from trustmark import trustmark as package
    except ImportError as error:
        raise SetupError(
            f"TrustMark cannot be imported ({error}); run: pip install -c constraints.txt "
            f"'.[trustmark]', or let the policy say `labels: {{watermark: embedded}}`"
        ) from error
    return _loaded(Path(package.__file__).parent / "models")


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> Any:
    from trustmark import trustmark as package

    _refuse_other_weights(folder, package.MODEL_CHECKSUMS, package.MODEL_REMOTE_HOST)

    class Offline(package.TrustMark):  # type: ignore[misc]
        def check_and_download(self, filename: str) -> None:
            """Nothing: the files are checked, and nothing is fetched during a run."""

    try:
        # The package tells of checkpoints on standard output, where answers in JSON go.
        with contextlib.redirect_stdout(io.StringIO()):
            return Offline(
                verbose=False,
                device="cpu",
                model_type=_VARIANT,
                encoding_type=package.TrustMark.Encoding.BCH_5,
                loadRemover=False,
            )
    # Checkpoints and the libraries that read them fail as they like.
    except Exception as error:
        raise SetupError(
            f"TrustMark's weights in {folder} cannot be loaded ({type(error).__name__}: {error}); "
            f"run: pip install -c constraints.txt '.[trustmark]'"
        ) from error


def _refuse_other_weights(folder: Path, checksums: dict[str, str], source: str) -> None:
    """MD5, because that is what the package publishes."""
    wrong = []
    for name in _FILES:
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        except OSError as error:
            wrong.append(f"{name}: {error.strerror}")
            continue
        if found.hexdigest() != checksums[name]:
            wrong.append(f"{name}: not the published file (MD5 {found.hexdigest()})")
    if wrong:
        once = f"TrustMark(model_type={_VARIANT!r}, loadRemover=False)"
        raise SetupError(
            f"TrustMark's weights are not in {folder} ({'; '.join(wrong)}); copy them there from "
            f"{source}, or run this once where there is internet: "
            f'python -c "from trustmark import TrustMark; {once}"; '
            f"or let the policy say `labels: {{watermark: embedded}}`"
        )
