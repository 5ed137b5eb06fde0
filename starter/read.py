"""Reading pictures back: zero-shot by the starter CLIP, with one sentence a subject and colour."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from starter.captions import joint_prompts
from starter.vocabulary import OBJECTS

Reading = tuple[str, str | None]


@torch.no_grad()
def embed_images(model: Any, x: Tensor) -> Tensor:
    """Unit embeddings [N,D] of pictures [N,3,H,W] in [0,1], resized as the model's card says."""
    model.eval()
    small = F.interpolate(x, (64, 64), mode="bicubic", antialias=True).clamp(0, 1) * 2 - 1
    dev = next(model.parameters()).device
    rows = [model.encode_image(part.to(dev)).float().cpu() for part in small.split(64)]
    return F.normalize(torch.cat(rows), dim=-1)


@torch.no_grad()
def embed_texts(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    """Unit embeddings [N,D] of sentences."""
    model.eval()
    ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    dev = next(model.parameters()).device
    return F.normalize(model.encode_text(ids.to(dev)).float().cpu(), dim=-1)


def joint_reader(
    model: Any, tokenizer: Any, subjects: tuple[str, ...] = OBJECTS
) -> Callable[[Tensor], list[Reading]]:
    """A reader that names the (subject, colour) whose sentence is nearest to each picture."""
    rows = joint_prompts(subjects)
    texts = embed_texts(model, tokenizer, [text for _, _, text in rows])

    def read(x: Tensor) -> list[Reading]:
        best = (embed_images(model, x) @ texts.T).argmax(-1)
        return [rows[i][:2] for i in best.tolist()]

    return read
