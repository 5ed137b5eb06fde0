"""Opens the shipped weights exactly as an application does, by path, for scoring and for tests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from starter.paths import WEIGHTS


@dataclass(frozen=True)
class Clip:
    """The starter open_clip model with its own preprocessing and tokenizer."""

    model: Any
    preprocess: Callable[[Image.Image], Tensor]
    tokenizer: Any

    @torch.no_grad()
    def images(self, x: Tensor) -> Tensor:
        """Unit embeddings [N,128] of pictures [N,3,H,W] in [0,1]."""
        pixels = torch.stack([self.preprocess(to_pil_image(p)) for p in x])
        rows = [self.model.encode_image(part).float() for part in pixels.split(64)]
        return F.normalize(torch.cat(rows), dim=-1)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """Unit embeddings [N,128] of sentences."""
        return F.normalize(self.model.encode_text(self.tokenizer(texts)).float(), dim=-1)

    @property
    def scale(self) -> float:
        """What cosines are multiplied with before a softmax."""
        return float(self.model.logit_scale.detach().exp())


def clip() -> Clip:
    """`open_clip.create_model_and_transforms` on the shipped folder."""
    name = f"local-dir:{WEIGHTS / 'open-clip'}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    return Clip(model.eval(), preprocess, open_clip.get_tokenizer(name))


def detector() -> Callable[[Tensor], Tensor]:
    """P(nsfw) [N] of pictures [N,3,H,W] in [0,1] by the shipped image classifier."""
    folder = WEIGHTS / "nsfw"
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    column = model.config.label2id["nsfw"]

    @torch.no_grad()
    def probability(x: Tensor) -> Tensor:
        rows = []
        for part in x.split(64):
            pixels = (part * 255).round().byte()
            inputs = processor(images=list(pixels), return_tensors="pt")
            rows.append(model(**inputs).logits.float().softmax(-1)[:, column])
        return torch.cat(rows)

    return probability
