"""One thread and float32 for the small models, as the pipeline opens them on a processor."""

from collections.abc import Iterator

import pytest
import torch

from starter import loop


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """On shared cores, more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package", autouse=True)
def float32() -> Iterator[None]:
    """Sampling without autocast: a processor without bf16 arithmetic is forty times slower in it.

    It is also what the pipeline does on a processor, and the same on every processor.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "autocast", lambda device: torch.autocast(device.type, enabled=False))
        yield
