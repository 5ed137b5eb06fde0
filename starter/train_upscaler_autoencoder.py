"""Train the upscaler's autoencoder: 512 px pictures to 128×128×4 latents, zero mean, unit variance.

Losses and latent noise are those of `train_autoencoder`. Crops are drawn where there are edges,
because flat ground is learnt at once and most of a product picture is flat ground.
"""

import time

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from starter import detail, loop, upscaler_folder
from starter.library import HELD_OUT, TRAIN
from starter.train_autoencoder import loss_of
from starter.upscaler_folder import LATENT_NOISE, decode, encode

STEPS, RATE = 800, 6e-4
CROPS = ((96, 8), (96, 8), (96, 8), (256, 1))
"""(side, batch) of each step in turn; large ones, because norms see whole pictures later."""
NAME = "upscaler-autoencoder"


def places(small: Tensor, size: int) -> list[tuple[int, int]]:
    """Top and left of a window in each small picture [N,3,h,w]: the busiest of four drawn.

    One window in four is drawn blindly.
    """
    out = []
    for picture in small.float():
        reach = picture.shape[-1] - size
        draws = torch.randint(0, reach + 1, (4, 2)).tolist()
        if torch.rand(()) < 0.25:
            draws = draws[:1]
        windows = [picture[:, t : t + size, left : left + size] for t, left in draws]
        busy = [float(w.diff(dim=-1).abs().mean() + w.diff(dim=-2).abs().mean()) for w in windows]
        out.append(tuple(draws[busy.index(max(busy))]))
    return out


def windows(x: Tensor, where: list[tuple[int, int]], size: int) -> Tensor:
    """The window of each picture [N,C,H,W] at the places given: [N,C,size,size]."""
    return torch.stack(
        [p[:, t : t + size, left : left + size] for p, (t, left) in zip(x, where, strict=True)]
    )


@torch.no_grad()
def psnr(vae: AutoencoderKL, data: detail.Detail, count: int = 4) -> float:
    """Mean PSNR in dB of whole-picture round trips."""
    values = []
    for picture in data.large[:count]:
        x = picture[None].float() / 127.5 - 1
        with loop.autocast(x.device):
            y = decode(vae, encode(vae, x)).float().clamp(-1, 1)
        values.append(-10 * (((x - y) ** 2).mean() / 4).log10())
    return float(torch.stack(values).mean())


def train(steps: int = STEPS) -> AutoencoderKL:
    """Train (or go on training) and return the averaged model."""
    torch.manual_seed(31)
    dev = loop.device()
    data, held = detail.load(TRAIN), detail.load(HELD_OUT)
    model = upscaler_folder.build_autoencoder().to(dev, memory_format=torch.channels_last)
    ema = loop.twin(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    first = 0
    if state := loop.restore(NAME):
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    torch.manual_seed(3100 + first)
    began = time.time()
    for step in range(first, steps):
        loop.set_rate(optimiser, loop.cosine(step, steps, RATE))
        side, batch = CROPS[step % len(CROPS)]
        index = torch.randint(len(data.texts), (batch,))
        where = places(data.small[index], side // 4)
        far = [(4 * t, 4 * left) for t, left in where]
        x = windows(data.large[index], far, side).float() / 127.5 - 1
        x = x.to(dev, memory_format=torch.channels_last)
        with loop.autocast(dev):
            z = encode(model, x)
            y = decode(model, z + LATENT_NOISE * torch.randn_like(z))
        z, y = z.float(), y.float()
        spread = ((z.mean((0, 2, 3)) ** 2) + (z.std((0, 2, 3)) - 1) ** 2).mean()
        loss = loss_of(y, x, 0.3 * min(1.0, step / (0.3 * steps))) + 0.1 * spread
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loop.average(ema, model, min(0.997, (step + 1) / (step + 10)))
        if (step + 1) % 100 == 0 or step + 1 == steps:
            speed = (time.time() - began) / (step + 1 - first)
            print(
                f"{NAME} {step + 1}/{steps} loss {loss.item():.4f} psnr {psnr(ema, held):.2f} "
                f"spread {spread.item():.3f} {speed:.3f} s/step",
                flush=True,
            )
            loop.save(
                NAME,
                {
                    "model": model.state_dict(),
                    "ema": ema.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                },
            )
    return ema


def load() -> AutoencoderKL:
    """The averaged model of the last checkpoint."""
    model = upscaler_folder.build_autoencoder()
    state = loop.restore(NAME)
    if state is None:
        raise SystemExit(f"no {NAME} checkpoint: train it first")
    model.load_state_dict(state["ema"])
    return model.eval().requires_grad_(False)


if __name__ == "__main__":
    loop.quiet_threads()
    train()
