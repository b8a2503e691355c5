"""Task of the demo: class names, a prompt, a function that draws an image of each class, and a domain."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from PIL import Image

from hubmerge.demo.drawing import PLAIN, Domain, Draw, choose_look, finish

# Parts of a task's images. The numbers enter the seeds, so that parts do not share random numbers.
PARTS = {"plain": 0, "train": 1, "test": 2}


@dataclass(frozen=True)
class DemoTask:
    """Classification task over drawn or cropped images of 24 x 24 pixels.

    name: also the name of the dataset repo and the end of the tower's name.
    prompt: a template with one {} for the class name.
    draw: (generator, label, look) -> a square image.
    about: one sentence for the dataset card: content and source of the images.
    """

    name: str
    class_names: tuple[str, ...]
    prompt: str
    draw: Draw
    domain: Domain
    about: str

    @property
    def prompts(self) -> list[str]:
        """The prompt of every class, in the order of the labels."""
        return [self.prompt.format(name) for name in self.class_names]

    def image(self, part: str, index: int, seed: int) -> tuple[Image.Image, int]:
        """Return image and label number `index` of a part: "plain" (for the base model), "train" or "test".

        The arguments determine the pixels. Labels alternate, so that all classes have about equally many images.
        """
        generator = np.random.default_rng([seed, crc32(self.name.encode()), PARTS[part], index])
        label = index % len(self.class_names)
        domain = PLAIN if part == "plain" else self.domain
        look = choose_look(domain, generator, plain=part == "plain", held_out=part == "test")
        return finish(self.draw(generator, label, look), domain, generator), label

    def images(self, part: str, count: int, seed: int) -> tuple[list[Image.Image], list[int]]:
        """Return the first `count` images of a part, and their labels."""
        pairs = [self.image(part, index, seed) for index in range(count)]
        return [image for image, _ in pairs], [label for _, label in pairs]
