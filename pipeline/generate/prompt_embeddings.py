"""Prompts → embeddings: weights like `(red)1.5`, prompts longer than the context, an LRU cache.

For pipelines with CLIP text towers (Stable Diffusion 1.x and 2.x, SDXL), by the library compel.
An image's embeddings depend on its own prompt and negative prompt alone: every text is encoded by
itself, and a pair is padded to the longer of the two. A batch is of one length; `chunks` tells it.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from pipeline.errors import SetupError

if TYPE_CHECKING:
    from torch import Tensor

MAX_WEIGHT = 10.0
# compel's parser tries every bracket in five ways: seven levels of them take it 20 seconds.
_MAX_NESTING, _MAX_BRACKETS = 3, 50
_SYNTAX = re.compile(r'[()"+-]')
_COLON_WEIGHT = re.compile(r"(?<!\\)\([^()]*[^()\s\d]:([+-]?\d*\.?\d+)\)")
_NEGATIVE_WEIGHT = re.compile(r'[)"]-\.?\d')
_OPERATOR = re.compile(r'[)"]\s*\.\s*([A-Za-z_]+)\(')


def check_syntax(prompt: str) -> str | None:
    """What is wrong with a weighted prompt and how to mend it, or None.

    compel itself takes most slips for plain text or drops them without a word, so that an image
    would come out unweighted; here they are problems. Imports neither torch nor the rest of compel.
    Raises SetupError when compel is not installed.
    """
    if problem := _bracket_problem(prompt) or _habit_problem(prompt):
        return problem
    # Most prompts are plain, and a parse takes milliseconds.
    if not _SYNTAX.search(prompt):
        return None
    parser = _parser()
    try:
        # compel's own call stops after `("a", "b").and()` and drops what follows.
        root = parser.conjunction.parse_string(re.sub(r",(\S)", r", \1", prompt), parse_all=True)
        parsed = parser.flatten(root[0])
    # A parser over what people write raises its own errors, OverflowError, RecursionError, ….
    except Exception as error:
        return f"cannot be parsed: {error or type(error).__name__}"
    if parsed.lora_weights:
        return "`withLora` and `useLora` have no effect here; take them out"
    fragments = list(_fragments(parsed.prompts))
    if not fragments:
        return "nothing but brackets; write words into them"
    if any(type(fragment).__name__ != "Fragment" for fragment in fragments):
        return "`.swap` has no effect here; write the words that you want"
    for match in _OPERATOR.finditer(prompt):
        if any(f".{match[1]}" in fragment.text for fragment in fragments):
            return (
                f"`.{match[1]}` would be read as plain text; know that `.blend(…)` and `.and(…)` "
                f'follow a list that opens the prompt: ("a mug", "a vase").blend(0.7, 0.3)'
            )
    return _weight_problem(parsed, [fragment.weight for fragment in fragments])


def _bracket_problem(prompt: str) -> str | None:
    open_at: list[int] = []
    pairs = 0
    for match in re.finditer(r"\\.|[()]", prompt, re.DOTALL):
        if match[0] == "(":
            open_at.append(match.start())
            if len(open_at) > _MAX_NESTING:
                return f"brackets nest deeper than {_MAX_NESTING}; write it flatter"
        elif match[0] == ")":
            pairs += 1
            if not open_at:
                return (
                    f"`)` at character {match.start() + 1} closes nothing; "
                    f"open it, or write \\) for the sign itself"
                )
            open_at.pop()
    if open_at:
        return (
            f"`(` at character {open_at[-1] + 1} is not closed; "
            f"close it, or write \\( for the sign itself"
        )
    if pairs > _MAX_BRACKETS:
        return f"{pairs} pairs of brackets; ≤ {_MAX_BRACKETS}"
    return None


def _habit_problem(prompt: str) -> str | None:
    """Weights as other programs write them, which compel would paint as words and numbers."""
    if match := _COLON_WEIGHT.search(prompt):
        return (
            f"`:{match[1]})` is read as plain text; write the weight behind the bracket: (red)1.5"
        )
    if _NEGATIVE_WEIGHT.search(prompt):
        return f"a weight below 0; write 0 to {MAX_WEIGHT:g}, as in (red)0.5"
    return None


def _weight_problem(parsed: Any, weights: list[float]) -> str | None:
    blends = [part for part in parsed.prompts if type(part).__name__ == "Blend"]
    of_parts = [*parsed.weights, *(weight for blend in blends for weight in blend.weights)]
    for weight in (*weights, *of_parts):
        if not 0 <= weight <= MAX_WEIGHT:
            return f"the weight {weight:g}; write 0 to {MAX_WEIGHT:g}"
    if any(not sum(blend.weights) for blend in blends):
        return "the weights of a blend are all 0; give one of them more"
    return None


def _fragments(parts: Sequence[Any]) -> Iterator[Any]:
    """Texts with their weights, in order, of a parsed prompt's parts (flat ones and blends)."""
    for part in parts:
        if type(part).__name__ == "Blend":
            yield from _fragments(part.prompts)
        else:
            yield from part.children


@cache
def _parser() -> Any:
    # Out of compel's folder by hand: `import compel` brings torch and diffusers.
    package = importlib.util.find_spec("compel")
    if package is None or not package.submodule_search_locations:
        raise SetupError(
            "weighted prompts need the package compel, which is not installed; "
            "run: pip install '.[studio]'"
        )
    path = f"{package.submodule_search_locations[0]}/prompt_parser.py"
    spec = importlib.util.spec_from_file_location("_platemark_compel_prompt_parser", path)
    if spec is None or spec.loader is None:
        raise SetupError(f"compel has no {path}; install compel 2.5")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.PromptParser()


def chunks_of(tokenizer: Any, prompt: str) -> int:
    """How many contexts (of `tokenizer.model_max_length` tokens) a weighted prompt fills; ≥ 1.

    Needs the tokenizer alone, no text encoder. Raises ValueError for what `check_syntax` refuses.
    """
    from compel import Compel, EmbeddingsProvider

    _refuse_bad_syntax(prompt)
    provider = EmbeddingsProvider(tokenizer, None, truncate=False, device="cpu")

    def length(part: Any) -> int:
        if type(part).__name__ == "Blend":
            return max(length(prompt) for prompt in part.prompts)
        texts = [fragment.text for fragment in part.children]
        weights = [fragment.weight for fragment in part.children]
        tokens, _, _ = provider.get_token_ids_and_expand_weights(texts, weights, device="cpu")
        return int(tokens.shape[0]) // int(provider.max_token_count)

    return sum(length(part) for part in Compel.parse_prompt_string(prompt).prompts)


def supports_weighting(pipeline: Any) -> bool:
    """Whether a diffusers pipeline has the text towers of Stable Diffusion 1.x, 2.x or SDXL."""
    names = {
        part: type(getattr(pipeline, part, None)).__name__
        for part in ("text_encoder", "text_encoder_2", "text_encoder_3", "unet")
    }
    absent = "NoneType"
    taken = inspect.signature(type(pipeline).__call__).parameters
    return (
        hasattr(pipeline, "encode_prompt")
        and getattr(pipeline, "tokenizer", None) is not None
        and {"prompt_embeds", "negative_prompt_embeds"} <= taken.keys()
        and names["text_encoder"] == "CLIPTextModel"
        and names["text_encoder_2"] in (absent, "CLIPTextModelWithProjection")
        # The latent upscaler wants a pooled prompt of its only tower.
        and ("pooled_prompt_embeds" in taken) == (names["text_encoder_2"] != absent)
        and names["text_encoder_3"] == absent
        and names["unet"] != absent
    )


class PromptEmbedder:
    """Embeddings of a loaded pipeline's prompts, kept for prompts that come again.

    With text-encoder adapters a text means other embeddings: `clear` after changing them.
    """

    def __init__(self, pipeline: Any, weighted: bool, cache_size: int = 0):
        """Embed for `pipeline`, with weights and long prompts by compel when `weighted`.

        Not `weighted`: by the pipeline's own `encode_prompt`, which truncates long prompts.
        `cache_size` is in texts, a prompt and a negative prompt being one each; they lie on the
        pipeline's device. Raises SetupError when the pipeline has other text encoders.
        """
        if not supports_weighting(pipeline):
            raise SetupError(
                f"{type(pipeline).__name__} has no text encoders that prompts can be weighted for; "
                f"that works with Stable Diffusion 1.x, 2.x and SDXL: switch weighting off"
            )
        self._pipeline = pipeline
        self._has_pooled = getattr(pipeline, "text_encoder_2", None) is not None
        self._towers = _compel_towers(pipeline) if weighted else []
        self._cache_size = cache_size
        self._cache: OrderedDict[str, tuple[Tensor, Tensor | None]] = OrderedDict()

    def __call__(self, prompts: list[str], negatives: list[str]) -> dict[str, Tensor]:
        """Keyword arguments for the pipeline's call, in place of its `prompt`s.

        `prompt_embeds` and `negative_prompt_embeds` [N, chunks x context, width], of the text
        encoder's dtype on the pipeline's device; for SDXL `pooled_prompt_embeds` and
        `negative_pooled_prompt_embeds` [N, width] too.

        Raises ValueError for a prompt that cannot be parsed, and when the rows differ in length:
        padding one to its neighbours would change its image. Group them by `chunks`.
        """
        import torch

        if not prompts or len(prompts) != len(negatives):
            raise ValueError(f"{len(prompts)} prompts and {len(negatives)} negative prompts")
        encoded = self._encode_all([*prompts, *negatives])
        rows, negative_rows = [], []
        for prompt, negative in zip(prompts, negatives, strict=True):
            pair = encoded[prompt][0], encoded[negative][0]
            longest = max(each.shape[1] for each in pair)
            # By no more than the two need: neighbours have no say in it.
            with torch.no_grad():
                row, negative_row = (_lengthened(each, self._towers, longest) for each in pair)
            rows.append(row)
            negative_rows.append(negative_row)
        if len({row.shape for row in rows}) > 1:
            raise ValueError("prompts of several lengths in one batch; group them by `chunks`")
        made = {
            "prompt_embeds": torch.cat(rows),
            "negative_prompt_embeds": torch.cat(negative_rows),
        }
        if self._has_pooled:
            for key, texts in (("", prompts), ("negative_", negatives)):
                pooled = [pooled for text in texts if (pooled := encoded[text][1]) is not None]
                made[f"{key}pooled_prompt_embeds"] = torch.cat(pooled)
        return made

    def chunks(self, prompt: str, negative: str) -> int:
        """Contexts that this pair's embeddings will fill: what a batch must have in common.

        Runs no text encoder. 1 without weighting. Raises ValueError for what cannot be parsed.
        """
        tokenizers = [tower.conditioning_provider.tokenizer for tower in self._towers]
        return max(
            (
                chunks_of(each, self._spelt_out(text))
                for each in tokenizers
                for text in (prompt, negative)
            ),
            default=1,
        )

    def clear(self) -> None:
        """Forget all embeddings."""
        self._cache.clear()

    def _encode_all(self, texts: list[str]) -> dict[str, tuple[Tensor, Tensor | None]]:
        import torch

        encoded = {}
        for text in dict.fromkeys(texts):
            if text in self._cache:
                self._cache.move_to_end(text)
                encoded[text] = self._cache[text]
                continue
            # Always alone: in a batch other kernels may run, whose rounding differs.
            with torch.no_grad():
                encoded[text] = self._weighted(text) if self._towers else self._plain(text)
            self._cache[text] = encoded[text]
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return encoded

    def _spelt_out(self, text: str) -> str:
        """A learnt word of several vectors as the several tokens that they are."""
        if not hasattr(self._pipeline, "maybe_convert_prompt"):
            return text
        converted: str = self._pipeline.maybe_convert_prompt(text, self._pipeline.tokenizer)
        return converted

    def _plain(self, text: str) -> tuple[Tensor, Tensor | None]:
        embeddings = self._pipeline.encode_prompt(
            prompt=[text],
            device=self._pipeline._execution_device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return embeddings[0], embeddings[2] if self._has_pooled else None

    def _weighted(self, text: str) -> tuple[Tensor, Tensor | None]:
        import torch

        _refuse_bad_syntax(text)
        text = self._spelt_out(text)
        device = self._pipeline._execution_device
        try:
            sides = [tower.build_conditioning_tensor(text).to(device) for tower in self._towers]
            longest = max(side.shape[1] for side in sides)
            sides = [
                _lengthened(side, [tower], longest)
                for side, tower in zip(sides, self._towers, strict=True)
            ]
            pooled = None
            if self._has_pooled:
                provider = self._towers[1].conditioning_provider
                pooled = provider.get_pooled_embeddings([_without_syntax(text)]).to(
                    device, provider.text_encoder.dtype
                )
        # compel looks up where a fragment's tokens lie, and may get lost among equal ones.
        except RuntimeError as error:
            if "fragment at index" not in str(error):
                raise
            raise ValueError(f"prompt {text[:80]!r} cannot be weighted: {error}") from error
        return torch.cat(sides, dim=-1), pooled


def _compel_towers(pipeline: Any) -> list[Any]:
    from compel import Compel, ReturnedEmbeddingsType, SplitLongTextMode

    def tower(suffix: str, layer: ReturnedEmbeddingsType) -> Any:
        return Compel(
            getattr(pipeline, f"tokenizer{suffix}"),
            getattr(pipeline, f"text_encoder{suffix}"),
            truncate_long_prompts=False,
            returned_embeddings_type=layer,
            split_long_text_mode=SplitLongTextMode.SENTENCES,
            device=str(pipeline._execution_device),
        )

    if getattr(pipeline, "text_encoder_2", None) is None:
        return [tower("", ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED)]
    layer = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
    return [tower("", layer), tower("_2", layer)]


def _lengthened(embeddings: Tensor, towers: Sequence[Any], length: int) -> Tensor:
    """[1, T, width] brought to [1, length, width] by the towers' embeddings of the empty prompt."""
    import torch

    if embeddings.shape[1] == length:
        return embeddings
    empty = torch.cat([tower.conditioning_provider.empty_z for tower in towers], dim=-1)
    missing = (length - embeddings.shape[1]) // empty.shape[1]
    return torch.cat([embeddings, *[empty.to(embeddings)] * missing], dim=1)


def _without_syntax(text: str) -> str:
    """The words alone; compel would pool over `(`, `)` and `1.5` too."""
    from compel import Compel

    return " ".join(
        fragment.text for fragment in _fragments(Compel.parse_prompt_string(text).prompts)
    )


def _refuse_bad_syntax(text: str) -> None:
    if problem := check_syntax(text):
        raise ValueError(f"prompt {text[:80]!r}: {problem}")
