"""`python -m starter.train`: make the world's pictures and train every starter model from nothing.

Each stage goes on from its last checkpoint in `$XDG_CACHE_HOME/platemark/starter`, so the command
can be stopped and started again; remove that folder for a fresh start.
"""

import argparse
from functools import partial

from starter import (
    detail,
    loop,
    make_references,
    pictures,
    pin,
    train_autoencoder,
    train_clip,
    train_controlnet,
    train_copy,
    train_depth,
    train_nsfw,
    train_segmenter,
    train_text_to_image,
    train_upscaler,
)
from starter.paths import cache_dir

STAGES = {
    "pictures": pictures.build,
    "autoencoder": train_autoencoder.train,
    "decoder": train_autoencoder.polish,
    "clip": train_clip.train,
    "nsfw": train_nsfw.train,
    "copy": train_copy.train,
    "references": make_references.build,
    "text-to-image": train_text_to_image.train_in_parallel,
    "detail": detail.build_all,
    "controlnet": partial(train_controlnet.train, "controlnet"),
    "inpainting": partial(train_controlnet.train, "inpainting"),
    "upscaling": train_upscaler.train,
    "depth": train_depth.train,
    "segmentation": train_segmenter.train,
    "pin": pin.pin,
}


def main() -> None:
    """Command line: all stages in order, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", help=f"some of: {', '.join(STAGES)}")
    chosen = parser.parse_args().stages or list(STAGES)
    if unknown := [name for name in chosen if name not in STAGES]:
        parser.error(f"no stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    loop.quiet_threads()
    print(f"checkpoints and contact sheets: {cache_dir()}", flush=True)
    for name in chosen:
        print(f"== {name}", flush=True)
        STAGES[name]()


if __name__ == "__main__":
    main()
