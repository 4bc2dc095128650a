"""The pictures that have golden answers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dulian.image import Image, decode_image

# Development photos, by their path in the labelled set: groups, a crowd, hard light, formats, faces at the edge.
DEV_PHOTOS = (
    "photos/faceapi_bbt1.jpg",
    "photos/deepface_selfie-many-people.jpg",
    "photos/facenet_multiface.jpg",
    "photos/facerec_biden.jpg",
    "photos/faceapi_happy.jpg",
    "hard/exif6_man.jpg",
    "hard/rot90_woman.jpg",
    "hard/dark_woman.jpg",
    "hard/blur_man.jpg",
    "formats/man_cmyk.jpg",
    "formats/woman_gray16.png",
)

# Labelled faces with head and shoulders, every eighth of them: all ages, both genders, two sources.
AAF_FACES = (
    "00000A02 07455A02 07389A02 01059A17 08405A20 02784A27 08965A27 09252A29 "
    "04901A38 11445A43 00197A04 07615A05 07649A06 06361A51 12276A53 07357A80 "
    "13093A72 13152A74 00627A11 07840A09 07498A03 08046A13 09942A33 12306A54 "
)
FAIRFACE_FACES = "0458 0161 0014 0192 0187 0214 0113 0371 0270 0208 0389 0437"
DEV_FACES = (
    *(f"faces/aaf/{name}.jpg" for name in AAF_FACES.split()),
    *(f"faces/fairface/fairface_{name}.jpg" for name in FAIRFACE_FACES.split()),
)


def sample_pictures(samples: Path) -> dict[str, bytes]:
    """Encoded pictures by name, all made from the public-domain samples."""
    astronaut = decode_image((samples / "astronaut.png").read_bytes()).image
    face = astronaut[20:260, 110:350]
    pictures = {
        "astronaut": astronaut,
        "astronaut mirrored": astronaut[:, ::-1],
        "astronaut dark": (astronaut * 0.12).astype(np.uint8),
        "astronaut blurred": np.asarray(cv2.GaussianBlur(astronaut, (0, 0), 4), np.uint8),
        "astronaut small": np.asarray(cv2.resize(astronaut, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)),
        "astronaut cut": astronaut[100:],
        "twelve astronauts": np.tile(face, (3, 4, 1)),
        "cat": decode_image((samples / "chelsea.png").read_bytes()).image,
        "plain": np.full((300, 400, 3), 200, np.uint8),
    }
    for turn in (90, 180, 270):
        pictures[f"astronaut turned {turn}"] = np.rot90(astronaut, -turn // 90)
    encoded = {name: _encode(image, ".png") for name, image in pictures.items()}
    encoded["astronaut jpeg"] = _encode(astronaut, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 97)
    encoded["astronaut webp"] = _encode(astronaut, ".webp", cv2.IMWRITE_WEBP_QUALITY, 97)
    return encoded


def _encode(image: Image, suffix: str, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, np.ascontiguousarray(image), list(options))
    assert done
    return data.tobytes()
