"""What text-to-image training stands on: the model to train, its latents, its noise levels."""

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from starter import loop, pictures, pipeline_folder
from starter.paths import cache_dir
from starter.train_autoencoder import load as load_autoencoder

PICTURES = 20_000


class Painter(nn.Module):
    """The UNet and the text tower that are trained together."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.unet = pipeline_folder.build_unet()
        self.text = pipeline_folder.build_text_encoder(vocabulary)
        if not torch.cuda.is_available():  # fused attention is slow backwards on a CPU
            self.unet.set_attn_processor(AttnProcessor())
            self.text.set_attn_implementation("eager")

    def forward(self, noisy: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """Predicted v [N,4,16,16] for noisy latents, timesteps [N] and token ids [N,32]."""
        return self.unet(noisy, t, self.text(ids).last_hidden_state, return_dict=False)[0]


@torch.no_grad()
def latents(data: pictures.Pictures) -> Tensor:
    """Latents of the first `PICTURES`, fp16 [N,4,16,16]; encoded once, then cached."""
    path = cache_dir() / "latents.pt"
    if path.exists():
        return torch.load(path)
    dev = loop.device()
    encoder = load_autoencoder().encoder.to(dev, memory_format=torch.channels_last)
    encode = loop.compiled(encoder)
    out = []
    for i in range(0, PICTURES, 32):
        x = data.batch(torch.arange(i, i + 32)) * 2 - 1
        with loop.autocast(dev):
            out.append(encode(x.to(dev, memory_format=torch.channels_last)).half().cpu())
        if i % 1600 == 0:
            print(f"latents {i}/{PICTURES}", flush=True)
    done = torch.cat(out).contiguous()
    torch.save(done, path)
    return done


def schedule() -> tuple[Tensor, Tensor]:
    """Signal and noise levels [1000] of the shipped scheduler, with the last signal exactly 0."""
    bar = pipeline_folder.scheduler().alphas_cumprod.double()
    bar[-1] = 0.0
    return bar.sqrt().float(), (1 - bar).sqrt().float()


def build(vocabulary: int) -> Painter:
    """Untrained UNet; the text tower starts from the trained CLIP where there is one."""
    painter = Painter(vocabulary)
    clip = loop.restore("clip")
    if clip:
        start = pipeline_folder.text_state(clip["ema"])
        own = painter.text.state_dict()
        names = {k.removeprefix("text_model."): k for k in own}
        painter.text.load_state_dict({names[k]: v for k, v in start.items()}, strict=False)
    return painter
