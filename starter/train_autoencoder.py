"""Train the autoencoder: 128 px pictures to 16×16×4 latents of zero mean and unit variance.

The loss starts from mean squared error and a low-pass term, without which it learns grey alone;
latents carry noise while it trains, so that the decoder forgives the diffusion model's errors.
"""

import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from starter import loop, pictures
from starter.library import HELD_OUT, TRAIN
from starter.paths import WEIGHTS

STEPS, POLISH, BATCH, RATE, CROP, NOISE = 3000, 2000, 24, 2e-3, 64, 0.08


def build() -> AutoencoderTiny:
    """An untrained f8, 4-channel AutoencoderTiny of 0.6 M parameters."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        num_encoder_blocks=(1, 1, 2, 2),
        num_decoder_blocks=(2, 2, 2, 1),
        scaling_factor=1.0,
    )


def loss_of(made: Tensor, real: Tensor, sharp: float) -> Tensor:
    """Squared error, low-pass absolute error, and gradient error weighted by `sharp`; [-1,1]."""
    low = (F.avg_pool2d(made, 8) - F.avg_pool2d(real, 8)).abs().mean()
    dx = (made.diff(dim=-1) - real.diff(dim=-1)).abs().mean()
    dy = (made.diff(dim=-2) - real.diff(dim=-2)).abs().mean()
    return 4 * F.mse_loss(made, real) + 0.5 * low + sharp * (dx + dy)


def crops(x: Tensor, size: int) -> Tensor:
    """A random window of each picture, kept to the middle where the subject is."""
    out = []
    for picture in x:
        top, left = (torch.randint(8, 128 - size - 7, (2,))).tolist()
        out.append(picture[:, top : top + size, left : left + size])
    return torch.stack(out)


@torch.no_grad()
def psnr(model: AutoencoderTiny, data: pictures.Pictures, count: int = 128) -> float:
    """Mean PSNR in dB of whole-picture round trips."""
    dev = next(model.parameters()).device
    x = data.batch(torch.arange(count)).to(dev) * 2 - 1
    y = torch.cat([model.decoder(model.encoder(p)).clamp(-1, 1) for p in x.split(16)])
    mse = ((x - y) ** 2).mean((1, 2, 3)) / 4
    return float((-10 * mse.log10()).mean())


def train(steps: int = STEPS) -> AutoencoderTiny:
    """Train (or go on training) and return the averaged model."""
    torch.manual_seed(1)
    dev = loop.device()
    data, held = pictures.load(TRAIN), pictures.load(HELD_OUT)
    model = build().to(dev, memory_format=torch.channels_last)
    ema = loop.twin(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    state = loop.restore("autoencoder")
    first = 0
    if state:
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    encode, decode = loop.compiled(model.encoder), loop.compiled(model.decoder)
    began = time.time()
    for step, index in zip(
        range(first, steps), loop.shuffled(len(data.scenes), BATCH, 1, first), strict=False
    ):
        loop.set_rate(optimiser, loop.cosine(step, steps, RATE))
        x = (crops(data.batch(index), CROP) * 2 - 1).to(dev, memory_format=torch.channels_last)
        with loop.autocast(dev):
            z = encode(x)
            y = decode(z + NOISE * torch.randn_like(z))
        z, y = z.float(), y.float()
        spread = ((z.mean((0, 2, 3)) ** 2) + (z.std((0, 2, 3)) - 1) ** 2).mean()
        loss = loss_of(y, x, 0.3 * min(1.0, step / (0.3 * steps))) + 0.1 * spread
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loop.average(ema, model, min(0.998, (step + 1) / (step + 10)))
        if (step + 1) % 250 == 0 or step + 1 == steps:
            speed = (time.time() - began) / (step + 1 - first)
            print(
                f"autoencoder {step + 1}/{steps} loss {loss.item():.4f} psnr "
                f"{psnr(ema, held, 64):.2f} spread {spread.item():.3f} {speed:.3f} s/step",
                flush=True,
            )
            loop.save(
                "autoencoder",
                {
                    "model": model.state_dict(),
                    "ema": ema.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                },
            )
    return ema


def polish(steps: int = POLISH) -> None:
    """Train the decoder further under a fixed encoder, so that latents made before stay valid."""
    torch.manual_seed(4)
    dev = loop.device()
    data, held = pictures.load(TRAIN), pictures.load(HELD_OUT)
    model = load().to(dev, memory_format=torch.channels_last)
    model.decoder.requires_grad_(True)
    ema = loop.twin(model)
    optimiser = torch.optim.AdamW(model.decoder.parameters(), lr=RATE / 2, weight_decay=0.0)
    first = 0
    if state := loop.restore("decoder"):
        model.decoder.load_state_dict(state["model"])
        ema.decoder.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    encode, decode = loop.compiled(model.encoder), loop.compiled(model.decoder)
    order = loop.shuffled(len(data.scenes), BATCH, 4, first)
    for step, index in zip(range(first, steps), order, strict=False):
        loop.set_rate(optimiser, loop.cosine(step, steps, RATE / 2, 20))
        x = (crops(data.batch(index), CROP) * 2 - 1).to(dev, memory_format=torch.channels_last)
        with loop.autocast(dev):
            with torch.no_grad():
                z = encode(x)
            y = decode(z + NOISE * torch.randn_like(z)).float()
        loss = loss_of(y, x, 0.3)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.decoder.parameters(), 1.0)
        optimiser.step()
        loop.average(ema, model, min(0.998, (step + 1) / (step + 10)))
        if (step + 1) % 250 == 0 or step + 1 == steps:
            print(f"decoder {step + 1}/{steps} psnr {psnr(ema, held, 64):.2f}", flush=True)
            state = {"model": model.decoder.state_dict(), "ema": ema.decoder.state_dict()}
            loop.save("decoder", state | {"optimiser": optimiser.state_dict(), "step": step + 1})


def load() -> AutoencoderTiny:
    """The averaged model of the last checkpoint, its decoder polished; without one, the shipped."""
    state = loop.restore("autoencoder")
    if state is None:
        shipped = AutoencoderTiny.from_pretrained(
            WEIGHTS / "text-to-image" / "vae", dtype=torch.float32
        )
        return shipped.eval().requires_grad_(False)
    model = build()
    model.load_state_dict(state["ema"])
    if polished := loop.restore("decoder"):
        model.decoder.load_state_dict(polished["ema"])
    return model.eval().requires_grad_(False)


if __name__ == "__main__":
    loop.quiet_threads()
    train()
    polish()
