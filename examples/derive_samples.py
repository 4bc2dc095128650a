"""Make a small album of easy and hard pictures out of the sample portrait: python derive_samples.py SAMPLES TARGET.

Shows what dulian says when a face is small, dark, blurred, lying on its side or one of many.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageEnhance, ImageFilter, ImageOps


def main(samples: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    portrait = Image.open(samples / "astronaut.png").convert("RGB")
    face = portrait.crop((100, 0, 350, 260))
    album = {
        "1-portrait": portrait,
        "2-dark": ImageEnhance.Brightness(portrait).enhance(0.1),
        "3-blurred": portrait.filter(ImageFilter.GaussianBlur(5)),
        "4-small": far_away(portrait),
        "5-on-its-side": portrait.rotate(90, expand=True),
        "6-group": group(face),
        "7-nobody": Image.open(samples / "chelsea.png").convert("RGB"),
    }
    for name, picture in album.items():
        picture.save(target / f"{name}.png")


def far_away(portrait: Image.Image) -> Image.Image:
    """The portrait as a small print on a large grey wall."""
    wall = Image.new("RGB", (640, 420), "gray")
    wall.paste(portrait.resize((110, 110)), (260, 150))
    return wall


def group(face: Image.Image) -> Image.Image:
    """Eight portraits close together, every other one mirrored, in three sizes."""
    canvas = Image.new("RGB", (880, 520), "dimgray")
    for index in range(8):
        scale = (1.0, 0.8, 0.6)[index % 3]
        tile = face.resize((round(face.width * scale), round(face.height * scale)))
        canvas.paste(ImageOps.mirror(tile) if index % 2 else tile, (index % 4 * 215, index // 4 * 255))
    return canvas


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
