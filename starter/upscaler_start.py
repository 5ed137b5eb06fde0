"""Start the upscaler's parts as plain bilinear enlargement, so that training only adds detail.

Two channels of every stream hold +LARGE and -LARGE. They outweigh all content in the group norms,
which then scale by a constant: absolute colour passes through, and statistics are alike in crops
and in whole pictures. Signed pairs pass the activation whole, because silu(v) - silu(-v) = v.
"""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

LARGE = 40.0
PAIRS = 3
"""Colours: channels 0..2 hold them, channels 3..5 their negatives."""


def _hold(weight: Tensor, *axes: int) -> None:
    """No gradient for the last two places of the axes named.

    A step of the optimiser on a weight that reads LARGE moves content LARGE times as far.
    """

    def held(grad: Tensor) -> Tensor:
        grad = grad.clone()
        for axis in axes:
            grad.narrow(axis, grad.shape[axis] - 2, 2).zero_()
        return grad

    weight.register_hook(held)


def _calm_norm(norm: nn.GroupNorm) -> None:
    """Undo the scale that the constants cause; the constants themselves go no further."""
    scale = (2 * LARGE**2 / norm.num_channels) ** 0.5
    nn.init.constant_(norm.weight, scale)
    nn.init.zeros_(norm.bias)
    norm.weight[-2:] = 0.0
    _hold(norm.weight, 0)
    _hold(norm.bias, 0)


def _constants(conv: nn.Conv2d) -> None:
    """The last two outputs are +LARGE and -LARGE, whatever comes in."""
    conv.weight[-2:] = 0.0
    conv.bias[-2:] = torch.tensor([LARGE, -LARGE])
    _hold(conv.weight, 0)
    _hold(conv.bias, 0)


def _through(conv: nn.Conv2d, kernel: Tensor) -> None:
    """Each output channel is the input channel of its number, blurred by `kernel` [k,k].

    Where widths differ, the two constants stay last and the spare channels start empty.
    """
    nn.init.normal_(conv.weight, std=1e-3)
    nn.init.zeros_(conv.bias)
    common = min(conv.in_channels, conv.out_channels) - 2
    for i in [*range(common), -1, -2]:
        conv.weight[i] = 0.0
        conv.weight[i, i] = kernel
    conv.weight[:-2, -2:] = 0.0
    _hold(conv.weight, 0, 1)
    _hold(conv.bias, 0)


def _read(conv: nn.Conv2d) -> None:
    """A conv behind an activation: He's variance, zero bias."""
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)


def _residual(block: nn.Module) -> None:
    """A residual block that adds nothing yet."""
    _calm_norm(block.norm1)
    _calm_norm(block.norm2)
    _read(block.conv1)
    _constants(block.conv1)
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    _hold(block.conv2.weight, 0)
    _hold(block.conv2.bias, 0)
    if block.conv_shortcut is not None:
        _through(block.conv_shortcut, torch.ones(1, 1))


def _split(conv: nn.Conv2d, source: list[int], gain: Tensor, shift: Tensor) -> None:
    """Channels 0..5 are ±(gain · input + shift) at the same place; the last two are constants."""
    _read(conv)
    conv.weight *= 0.25
    conv.weight[: 2 * PAIRS] = 0.0
    middle = conv.kernel_size[0] // 2
    for i, at in enumerate(source):
        for k, sign in ((i, 1.0), (i + PAIRS, -1.0)):
            conv.weight[k, at, middle, middle] = sign * gain[i]
            conv.bias[k] = sign * shift[i]
    _constants(conv)


def _join(norm: nn.GroupNorm, conv: nn.Conv2d, sign: float = 1.0) -> None:
    """The first three outputs put the signed pairs together again; the others start small."""
    _calm_norm(norm)
    _read(conv)
    conv.weight *= 0.5
    conv.weight[:PAIRS] = 0.0
    middle = conv.kernel_size[0] // 2
    for i in range(PAIRS):
        conv.weight[i, i, middle, middle] = sign
        conv.weight[i, i + PAIRS, middle, middle] = -sign


@torch.no_grad()
def start_autoencoder(vae: AutoencoderKL, mean: Tensor, spread: Tensor) -> None:
    """Latents start as block means with colours of `mean` [3] and `spread` [3] made standard."""
    one = torch.ones(PAIRS)
    for part in (vae.encoder, vae.decoder):
        for module in part.modules():
            if hasattr(module, "conv1"):
                _residual(module)
        _join(part.conv_norm_out, part.conv_out)
    _split(vae.encoder.conv_in, [0, 1, 2], one, 0 * one)
    half = torch.zeros(3, 3)
    half[:2, :2] = 0.25
    for down in vae.encoder.down_blocks[:-1]:
        _through(down.downsamplers[0].conv, half)
    tent = torch.tensor([0.25, 0.5, 0.25])
    for up in vae.decoder.up_blocks[:-1]:
        _through(up.upsamplers[0].conv, tent[:, None] * tent)
    for conv in (vae.quant_conv, vae.post_quant_conv):
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)
    for i in range(PAIRS):
        vae.quant_conv.weight[i] /= spread[i]
        vae.quant_conv.bias[i] = -mean[i] / spread[i]
    _split(vae.decoder.conv_in, [0, 1, 2], spread, mean)


@torch.no_grad()
def start_unet(unet: UNet2DConditionModel, mean: Tensor, spread: Tensor) -> None:
    """The first prediction is what full noise asks for: minus the latents of the small picture."""
    _split(unet.conv_in, [4, 5, 6], 1 / spread, -mean / spread)
    first, last = unet.up_blocks[-1].resnets
    skip = last.conv_shortcut.in_channels - unet.conv_in.out_channels
    # Where the constants meet content, norms undo their scale and convolutions pass them over.
    for norm in (unet.down_blocks[0].resnets[0].norm1, first.norm1, last.norm1):
        _calm_norm(norm)
    for conv in (
        unet.down_blocks[0].downsamplers[0].conv,
        first.conv_shortcut,
        last.conv_shortcut,
    ):
        conv.weight[:, -2:] = 0.0
        _hold(conv.weight, 1)
    for i in [*range(2 * PAIRS), -1, -2]:
        last.conv_shortcut.weight[i] = 0.0
        last.conv_shortcut.bias[i] = 0.0
        last.conv_shortcut.weight[i, i if i < 0 else skip + i] = 1.0
    _hold(last.conv_shortcut.weight, 0)
    _hold(last.conv_shortcut.bias, 0)
    for weight in (last.conv2.weight, last.conv2.bias):
        _hold(weight, 0)
    nn.init.zeros_(last.conv2.weight)
    nn.init.zeros_(last.conv2.bias)
    _join(unet.conv_norm_out, unet.conv_out, -1.0)
