"""A small byte-level BPE tokenizer in CLIP's own file format, learnt from captions.

The same files serve transformers' CLIPTokenizer (in the pipeline) and open_clip's HFTokenizer.
"""

import itertools
import json
from collections import Counter
from pathlib import Path
from random import Random

from transformers import CLIPTokenizer

from starter.captions import caption
from starter.vocabulary import SUBJECTS
from starter.world import random_scene

CONTEXT = 32
MERGES = 600
START, END = "<|startoftext|>", "<|endoftext|>"


def _byte_letters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in CLIP's order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


def _words(count: int, seed: int) -> Counter[str]:
    rng = Random(seed)
    words: Counter[str] = Counter()
    for i in range(count):
        text = caption(random_scene(rng.choice(SUBJECTS), rng, i), rng).lower()
        for word in "".join(c if c.isalpha() else " " for c in text).split():
            words[word] += 1
    return words


def learn_merges(words: Counter[str], limit: int) -> list[tuple[str, str]]:
    """Byte-pair merges by falling frequency (Sennrich et al. 2016), words that occur 20 times."""
    split = {w: (*w[:-1], w[-1] + "</w>") for w, n in words.items() if n >= 20}
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for word, parts in split.items():
            out: list[str] = []
            for part in parts:
                if out and (out[-1], part) == best:
                    out[-1] += part
                else:
                    out.append(part)
            split[word] = tuple(out)
    return merges


def build(folder: Path, seed: int = 0) -> CLIPTokenizer:
    """Learn the tokenizer and write `vocab.json`, `merges.txt` and configs into `folder`."""
    merges = learn_merges(_words(30_000, seed), MERGES)
    letters = _byte_letters()
    names = [*letters, *(c + "</w>" for c in letters), *(a + b for a, b in merges), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {name: i for i, name in enumerate(dict.fromkeys(names))}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    tokenizer = load(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def load(folder: Path) -> CLIPTokenizer:
    """The tokenizer from its two files, with the context length of the starter models."""
    return CLIPTokenizer.from_pretrained(folder, model_max_length=CONTEXT, pad_token=END)
