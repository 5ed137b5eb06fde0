"""Prompts to embeddings on real models: weights, long prompts, neighbours, the cache, syntax."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from pipeline.errors import SetupError
from pipeline.generate.prompt_embeddings import (
    PromptEmbedder,
    check_syntax,
    chunks_of,
    supports_weighting,
)
from pipeline.models import load_models, resolve

LONG = "a red mug, a blue vase, a green lamp, " * 4
PLAIN = ["a red mug", "a blue vase on a white background", "a red mug", ""]


@pytest.fixture(scope="module")
def starter() -> Any:
    """The starter text-to-image pipeline; its text encoder's context is 32 tokens."""
    import diffusers
    from diffusers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    source = resolve(load_models(), "starter", "text-to-image").source
    loader: Any = diffusers.AutoPipelineForText2Image
    pipeline = loader.from_pretrained(source, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def sdxl(starter: Any) -> Any:
    """A Stable Diffusion XL pipeline, small and untrained, with the starter's tokenizer."""
    import torch
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(5)
    tokenizer = starter.tokenizer
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=32, projection_dim=16,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=64,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=8,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8, norm_num_groups=8,
    )  # fmt: skip
    pipeline = StableDiffusionXLPipeline(
        starter.vae, CLIPTextModel(config).eval(), CLIPTextModelWithProjection(config).eval(),
        tokenizer, tokenizer, unet, starter.scheduler,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def paint(pipeline: Any, count: int, **given: Any) -> np.ndarray[Any, Any]:
    import torch

    generators = [torch.Generator("cpu").manual_seed(number) for number in range(count)]
    images = pipeline(
        generator=generators, width=128, height=128, num_inference_steps=2, guidance_scale=3.0,
        output_type="np", **given,
    ).images  # fmt: skip
    return np.asarray(images)


def embed(pipeline: Any, prompt: str, negative: str = "") -> Any:
    """Weighted embeddings [1, T, width] of one prompt."""
    return PromptEmbedder(pipeline, weighted=True)([prompt], [negative])["prompt_embeds"]


@pytest.mark.parametrize("weighted", [False, True])
def test_plain_prompts_paint_the_same_pixels_as_without_embeddings(
    starter: Any, weighted: bool
) -> None:
    negatives = ["", "blur", "", "a red mug"]
    given = PromptEmbedder(starter, weighted)(PLAIN, negatives)
    assert given.keys() == {"prompt_embeds", "negative_prompt_embeds"}
    ours = paint(starter, 4, **given)
    assert np.array_equal(ours, paint(starter, 4, prompt=PLAIN, negative_prompt=negatives))
    assert not np.array_equal(ours[0], ours[1])


@pytest.mark.parametrize("weighted", [False, True])
def test_sdxl_takes_both_towers_and_pooled_embeddings(sdxl: Any, weighted: bool) -> None:
    import torch

    negatives = ["", "blur", "", "a red mug"]
    given = PromptEmbedder(sdxl, weighted)(PLAIN, negatives)
    own = sdxl.encode_prompt(
        prompt=PLAIN, negative_prompt=negatives, num_images_per_prompt=1, device="cpu"
    )
    names = ("", "negative_")
    for name, expected in zip(names, own[:2], strict=True):
        torch.testing.assert_close(given[f"{name}prompt_embeds"], expected)
    for name, expected in zip(names, own[2:], strict=True):
        torch.testing.assert_close(given[f"{name}pooled_prompt_embeds"], expected)
    ours = paint(sdxl, 4, **given)
    own_way = paint(sdxl, 4, prompt=PLAIN, negative_prompt=negatives)
    np.testing.assert_allclose(ours, own_way, atol=1e-3)


def test_sdxl_pools_words_without_weights_and_lengthens_both_towers(sdxl: Any) -> None:
    import torch

    embedder = PromptEmbedder(sdxl, weighted=True)
    heavy = embedder(["a (red)1.5 mug"], [""])
    plain = embedder(["a red mug"], [""])
    assert torch.equal(heavy["pooled_prompt_embeds"], plain["pooled_prompt_embeds"])
    assert not torch.equal(heavy["prompt_embeds"], plain["prompt_embeds"])
    long = embedder([LONG], [""])
    assert long["prompt_embeds"].shape == long["negative_prompt_embeds"].shape == (1, 64, 64)
    assert embedder.chunks(LONG, "") == 2
    assert paint(sdxl, 1, **long).shape == (1, 128, 128, 3)


def test_a_weight_stretches_its_token_away_from_the_empty_prompt(starter: Any) -> None:
    import torch

    plain, heavy = embed(starter, "a red mug"), embed(starter, "a (red)1.5 mug")
    empty = embed(starter, "")
    # Start marker, "a", "red", "mug".
    torch.testing.assert_close(heavy[:, 2], empty[:, 2] + 1.5 * (plain[:, 2] - empty[:, 2]))
    others = [position for position in range(32) if position != 2]
    assert torch.equal(heavy[:, others], plain[:, others])
    assert torch.equal(embed(starter, "a red++ mug"), embed(starter, "a (red)1.21 mug"))


def test_a_light_word_comes_close_to_no_word(starter: Any) -> None:
    plain = embed(starter, "a red mug")
    distances = [
        float((embed(starter, f"a (red){weight} mug") - plain).norm()) for weight in (0.9, 0.5, 0.1)
    ]
    assert 0 < distances[0] < distances[1] < distances[2]


def test_weights_change_pixels_the_way_they_say(starter: Any) -> None:
    import torch

    prompts = ["a (red)0.1 mug", "a red mug", "a (red)1.4 mug"]
    given = PromptEmbedder(starter, weighted=True)(prompts, [""] * 3)
    images = starter(
        generator=[torch.Generator("cpu").manual_seed(1) for _ in prompts],
        width=128, height=128, num_inference_steps=5, guidance_scale=3.0, output_type="np", **given,
    ).images  # fmt: skip
    redness = (images[..., 0] - images[..., 1:].mean(axis=-1)).mean(axis=(1, 2))
    assert redness[0] + 0.01 < redness[1] < redness[2]


def test_long_prompts_are_read_to_the_end(starter: Any) -> None:
    import torch

    red, blue = embed(starter, LONG + "red"), embed(starter, LONG + "blue")
    assert red.shape == (1, 64, 128)
    assert torch.equal(red[:, :32], blue[:, :32])
    assert not torch.equal(red, blue)
    # Without weighting the pipeline's own way, which cuts them off.
    cut = [
        PromptEmbedder(starter, False)([LONG + end], [""])["prompt_embeds"]
        for end in ("red", "blue")
    ]
    assert cut[0].shape == (1, 32, 128)
    assert torch.equal(*cut)


@pytest.mark.parametrize(
    ("prompt", "negative", "chunks"),
    [
        ("", "", 1),
        ("a red mug", "blur", 1),
        (LONG, "", 2),
        ("", LONG, 2),
        (LONG * 3, LONG, 6),
        ('("a red mug", "a blue vase").and()', "", 2),
        ('("a red mug", "a blue vase").and(1, 0.5)', "", 2),
        ('("a red mug", "a blue vase").blend(1, 2)', "", 1),
        (f'("{LONG}", "a blue vase").blend(1, 2)', "", 2),
        ("a (red)0.5 (blue)1.2 vase. " * 9, "", 2),
    ],
)
def test_chunks_tell_the_length_beforehand(
    starter: Any, prompt: str, negative: str, chunks: int
) -> None:
    embedder = PromptEmbedder(starter, weighted=True)
    assert embedder.chunks(prompt, negative) == chunks
    given = embedder([prompt], [negative])
    assert given["prompt_embeds"].shape == given["negative_prompt_embeds"].shape
    assert given["prompt_embeds"].shape == (1, 32 * chunks, 128)
    assert PromptEmbedder(starter, weighted=False).chunks(prompt, negative) == 1
    assert chunks_of(starter.tokenizer, prompt) <= chunks


def test_rows_do_not_depend_on_their_neighbours(starter: Any) -> None:
    import torch

    pairs = [("a (red)1.3 mug", LONG), (LONG, "blur"), (LONG + "(red)0.5", ""), ("", LONG)]
    together = PromptEmbedder(starter, weighted=True)(*map(list, zip(*pairs, strict=True)))
    for row, (prompt, negative) in enumerate(pairs):
        alone = PromptEmbedder(starter, weighted=True)([prompt], [negative])
        for name, values in together.items():
            assert torch.equal(values[row : row + 1], alone[name])


def test_a_batch_of_several_lengths_is_refused(starter: Any) -> None:
    embedder = PromptEmbedder(starter, weighted=True)
    with pytest.raises(ValueError, match="group them by `chunks`"):
        embedder(["a red mug", LONG], ["", ""])
    with pytest.raises(ValueError, match="2 prompts and 1 negative"):
        embedder(["a", "b"], [""])
    with pytest.raises(ValueError, match="0 prompts"):
        embedder([], [])


def counted(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with every pass of the text encoder."""
    passes: list[int] = []
    forward = pipeline.text_encoder.forward

    def counting(*args: Any, **named: Any) -> Any:
        passes.append(1)
        return forward(*args, **named)

    monkeypatch.setattr(pipeline.text_encoder, "forward", counting)
    return passes


@pytest.mark.parametrize("weighted", [False, True])
def test_the_cache_gives_the_same_bits_and_drops_the_least_recently_used(
    starter: Any, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    passes = counted(starter, monkeypatch)
    embedder = PromptEmbedder(starter, weighted, cache_size=2)
    first = embedder(["a mug", "a mug"], ["", ""])
    assert len(passes) == 2
    again = embedder(["a mug"], [""])
    assert len(passes) == 2
    assert torch.equal(first["prompt_embeds"][:1], again["prompt_embeds"])
    # What a caller does to its tensors does not reach the cache.
    again["prompt_embeds"].zero_()
    assert torch.equal(first["prompt_embeds"][:1], embedder(["a mug"], [""])["prompt_embeds"])
    embedder(["a mug"], ["a mug"])
    embedder(["a vase"], ["a vase"])
    embedder(["a mug"], ["a mug"])
    assert len(passes) == 3
    embedder([""], [""])
    assert len(passes) == 4
    embedder.clear()
    embedder(["a mug"], ["a mug"])
    assert len(passes) == 5


def test_without_a_cache_a_batch_still_encodes_a_text_once(
    starter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = counted(starter, monkeypatch)
    embedder = PromptEmbedder(starter, weighted=False)
    for _ in range(2):
        embedder(["a mug"] * 4, [""] * 4)
    assert len(passes) == 4


def test_embeddings_take_no_gradients_and_the_encoders_type(starter: Any) -> None:
    import copy

    import torch

    half = copy.copy(starter)
    half.text_encoder = copy.deepcopy(starter.text_encoder).to(torch.bfloat16)
    for prompt in ("a (red)1.5 mug", "a (red)0.5 mug", LONG):
        given = PromptEmbedder(half, weighted=True)([prompt], ["blur"])
        assert {values.dtype for values in given.values()} == {torch.bfloat16}
        assert not any(values.requires_grad for values in given.values())


def test_only_clip_towers_are_supported(starter: Any, sdxl: Any) -> None:
    from diffusers import FluxPipeline, StableDiffusion3Pipeline

    assert supports_weighting(starter)
    assert supports_weighting(sdxl)
    for kind in (FluxPipeline, StableDiffusion3Pipeline):
        other = kind.__new__(kind)
        other.__dict__["text_encoder"] = starter.text_encoder
        other.__dict__["tokenizer"] = starter.tokenizer
        assert not supports_weighting(other)
    with pytest.raises(SetupError, match="StableDiffusion3Pipeline has no text encoders"):
        PromptEmbedder(other, weighted=True)


GOOD = [
    "", "a red mug", "a (red)1.5 mug", "a mug++, a vase--", "(a, b)0.5", "((red)1.2 mug)1.1",
    'a 5" pan', 'a 5" pan and 7" pan', r"a \(red\) mug", "a mug (white) on a desk", "scale (1:2)",
    "t-shirt, 3.5 cm, 1,5 litres", "a mug (blue). A vase.", '("a mug", "a vase").blend(0.7, 0.3)',
    '("a (red)1.2 mug", "a vase").and(1, 0.5)', "(red).attend(1.5) mug", "日本 (赤)1.2", "a" * 4000,
]  # fmt: skip


@pytest.mark.parametrize("prompt", GOOD)
def test_good_syntax_is_no_problem_and_embeds(starter: Any, prompt: str) -> None:
    assert check_syntax(prompt) is None
    assert embed(starter, prompt).isfinite().all()


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("a (red mug", "`(` at character 3 is not closed"),
        ("((a)1.2", "`(` at character 1 is not closed"),
        ("a red) mug", "`)` at character 6 closes nothing"),
        (r"a (red\) mug", "`(` at character 3 is not closed"),
        ("((((a))))", "nest deeper than 3"),
        ("(a)" * 51, "51 pairs of brackets"),
        ("()", "nothing but brackets"),
        ("(red:1.5) mug", "(red)1.5"),
        ("(a)-1", "a weight below 0"),
        ("(a)99", "the weight 99; write 0 to 10"),
        ("((a)9)9", "the weight 81"),
        ("a" + "+" * 3999, "write 0 to 10"),
        ('("a", "b").blend(1)', "cannot be parsed: while parsing Blend"),
        ('("a", "b").blend(0, 0)', "all 0"),
        ('("a", "b").and() and more', "cannot be parsed: Expected end of text"),
        ('a mug ("a", "b").blend(1, 2)', "`.blend` would be read as plain text"),
        ('("a", "b").mix()', "`.mix` would be read as plain text"),
        ("a (red).swap(blue) mug", "`.swap` has no effect"),
        ("withLora(x, 1) a mug", "have no effect"),
    ],
)
def test_bad_syntax_is_told_and_refused(starter: Any, prompt: str, problem: str) -> None:
    assert problem in (check_syntax(prompt) or "")
    embedder = PromptEmbedder(starter, weighted=True)
    for call in (lambda: embedder([prompt], [""]), lambda: embedder(["a"], [prompt]),
                 lambda: embedder.chunks("a", prompt)):  # fmt: skip
        with pytest.raises(ValueError, match=r"^prompt ") as caught:
            call()
        assert problem in str(caught.value)
    # Without weighting brackets are what they look like.
    assert PromptEmbedder(starter, weighted=False)([prompt], [""])


def test_syntax_is_checked_without_torch() -> None:
    code = (
        "import sys; from pipeline.generate.prompt_embeddings import check_syntax; "
        "assert check_syntax('a (red)1.5 mug') is None; assert check_syntax('(') is not None; "
        "assert not {'torch', 'diffusers', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
