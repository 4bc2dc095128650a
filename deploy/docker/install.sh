#!/bin/sh
# The steps of the image, one command each: the Dockerfile runs them, and build-rootfs does where there is no Docker.
# Both start from Debian trixie as root, with the repository in /src, and end with the image's layers in /image.
set -eu

SRC=/src
BUILD=/build                # an environment that builds and converts; stays behind
APP=/opt/dulian             # the environment of the image
LAYERS=/image
MODELS=/usr/share/dulian/models
SBOM=/usr/share/dulian/sbom.cdx.json
USER_ID=10001
HOME_DIR=/var/lib/dulian     # made of the layer home, whose owner the Dockerfile sets

# Debian's part of the image: Python, and the libraries that it and the wheels link to. No shell, no package manager.
# wqy-microhei is for Chinese labels.
DEBIAN="base-files netbase tzdata libc6 libgcc-s1 libstdc++6 zlib1g
  python3-minimal python3.13-minimal libpython3.13-minimal libpython3.13-stdlib
  libexpat1 libffi8 libssl3t64 libbz2-1.0 liblzma5 libzstd1 libuuid1 libsqlite3-0 ca-certificates
  fonts-wqy-microhei"

# TIFF, GIF and AVIF are read by Pillow.
OPENCV="-DBUILD_LIST=core,imgproc,imgcodecs,python3 -DCPU_DISPATCH=SSE4_1,AVX2
  -DWITH_FFMPEG=OFF -DWITH_GSTREAMER=OFF -DWITH_V4L=OFF -DWITH_IPP=OFF -DWITH_ITT=OFF -DWITH_OPENCL=OFF -DWITH_VA=OFF
  -DWITH_LAPACK=OFF -DWITH_EIGEN=OFF -DWITH_ADE=OFF -DWITH_QUIRC=OFF -DWITH_FLATBUFFERS=OFF
  -DWITH_PROTOBUF=OFF -DBUILD_PROTOBUF=OFF -DWITH_AVIF=OFF -DWITH_TIFF=OFF -DWITH_GIF=OFF -DWITH_OPENEXR=OFF
  -DWITH_OPENJPEG=OFF -DWITH_JASPER=OFF -DWITH_IMGCODEC_HDR=OFF -DWITH_IMGCODEC_SUNRASTER=OFF
  -DWITH_IMGCODEC_PXM=OFF -DWITH_IMGCODEC_PFM=OFF -DBUILD_JPEG=ON -DBUILD_PNG=ON -DBUILD_WEBP=ON -DBUILD_ZLIB=ON"

# pip PYTHON NAME…: what the lock files of these names list.
pip() {
  python=$1
  shift
  for name in "$@"; do
    shift
    set -- "$@" --requirement "$SRC/requirements/$name.txt"
  done
  "$BUILD/bin/python" -m pip --python "$python" install --quiet --disable-pip-version-check --no-cache-dir --no-compile \
    --no-deps --require-hashes --only-binary=:all: "$@"
}

# Bytecode that is never compared with its source: the root file system is read-only, and times are none of its business.
compile() {
  "$BUILD/bin/python" -m compileall -q --invalidation-mode unchecked-hash "$@"
}

site() {
  "$APP/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

# tools: what the other steps need.
step_tools() {
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends python3 python3-venv >/dev/null
  python3 -m venv "$BUILD"
}

# packages [EXTRA…]: everything that Python runs, by hash.
step_packages() {
  [ -x "$APP/bin/python" ] || python3 -m venv --without-pip "$APP"
  for extra in "$@"; do
    shift
    set -- "$@" "serve-$extra"
  done
  pip "$APP/bin/python" serve "$@"
}

# What an installed service never opens: tests, headers, stubs, trainers' tools, Haar cascades, a second ONNX Runtime for
# programs in C, and OpenVINO's readers of other frameworks and drivers of other devices.
trim() {
  (
    cd "$1"
    find numpy onnxruntime openvino -depth -type d \( -name tests -o -name include \) -exec rm -rf {} + 2>/dev/null || true
    find . -name '*.pyi' -delete
    rm -rf numpy/f2py numpy/_pyinstaller numpy/_core/lib cv2/data onnxruntime/capi/libonnxruntime.so.*
    for part in backend datasets quantization tools transformers; do rm -rf "onnxruntime/$part"; done
    if [ -d openvino/libs ]; then
      rm -rf openvino/tools
      for part in intel_gpu intel_npu auto_batch tensorflow tensorflow_lite pytorch paddle jax; do
        rm -f openvino/libs/libopenvino_"$part"_plugin.so* openvino/libs/libopenvino_"$part"_frontend.so*
      done
    fi
  )
}

# models [PROFILE…]: fetched and converted in the environment for it, which has onnx, and verified.
step_models() {
  pip "$BUILD/bin/python" run
  build_wheel
  "$BUILD/bin/dulian" models pull "$@" --model-dir "$LAYERS/models$MODELS"
  "$BUILD/bin/dulian" models verify "$@" --model-dir "$LAYERS/models$MODELS"
  rm -f "$LAYERS/models$MODELS/.dulian-lock"
  chmod -R a+rX "$LAYERS/models"
}

build_wheel() {
  "$BUILD/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    --wheel-dir "$BUILD/wheel" "$SRC"
  "$BUILD/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index "$BUILD"/wheel/*.whl
}

# opencv: its published source in place of its published wheel, with what dulian calls and nothing else: no video, no
# networks (the engines opencv and opencv-caffe are not there), no code of Intel's. What it is built with is not pinned.
step_opencv() {
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends g++ cmake ninja-build nasm python3-dev >/dev/null
  sed -n '/^opencv-python-headless==/,/[^\\]$/p' "$SRC/requirements/serve.txt" >"$BUILD/opencv.txt"
  "$BUILD/bin/python" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes \
    --no-binary=opencv-python-headless --requirement "$BUILD/opencv.txt" --dest "$BUILD/opencv"
  tar -xzf "$BUILD"/opencv/*.tar.gz -C "$BUILD/opencv" --strip-components=1
  # It insists on type hints, which it can make only of all modules, and on Haar cascades.
  sed -i 's/raise Exception("Not found.*/pass/' "$BUILD/opencv/setup.py"
  CMAKE_GENERATOR=Ninja ENABLE_HEADLESS=1 CMAKE_ARGS="$OPENCV" "$BUILD/bin/python" -m pip wheel --quiet \
    --disable-pip-version-check --no-cache-dir --no-deps --wheel-dir "$BUILD/opencv/wheel" "$BUILD/opencv"
  "$BUILD/bin/python" -m pip --python "$APP/bin/python" install --quiet --disable-pip-version-check --no-compile \
    --force-reinstall --no-deps --no-index "$BUILD"/opencv/wheel/*.whl
}

# debian: the packages above, unpacked and not configured; what is in them stays known to scanners.
step_debian() {
  layer="$LAYERS/debian"
  mkdir -p "$layer" "$BUILD/deb"
  chmod 777 "$BUILD/deb" # apt fetches as a user of its own
  # shellcheck disable=SC2086
  (cd "$BUILD/deb" && apt-get download -qq $DEBIAN)
  for deb in "$BUILD"/deb/base-files_*.deb "$BUILD"/deb/*.deb; do
    dpkg-deb -x "$deb" "$layer"
    mkdir -p "$layer/var/lib/dpkg/status.d"
    dpkg-deb -f "$deb" >"$layer/var/lib/dpkg/status.d/$(dpkg-deb -f "$deb" Package)"
  done
  bundle_certificates "$layer"
  find "$layer/usr/share/doc" -type f ! -name copyright -delete
  rm -rf "$layer/usr/lib/$(uname -m)-linux-gnu/gconv" # for iconv, which Python does not use
  (cd "$layer/usr/share" && rm -rf man locale info lintian bash-completion)
  (cd "$layer/usr/lib/python3.13" && rm -rf ensurepip idlelib pydoc_data tkinter turtledemo)
  compile -s "$layer" -p / "$layer/usr/lib/python3.13"
  users "$layer"
}

# What update-ca-certificates would do.
bundle_certificates() {
  mkdir -p "$1/etc/ssl/certs"
  find "$1/usr/share/ca-certificates" -name '*.crt' | sort | xargs cat >"$1/etc/ssl/certs/ca-certificates.crt"
  rm -rf "$1/usr/share/ca-certificates"
}

users() {
  printf 'root:x:0:0:root:/root:/sbin/nologin\ndulian:x:%s:%s:dulian:%s:/sbin/nologin\n' \
    $USER_ID $USER_ID $HOME_DIR >"$1/etc/passwd"
  printf 'root:x:0:\ndulian:x:%s:\n' $USER_ID >"$1/etc/group"
  # Models of one's own may be mounted at /root/models, so that others have to get through.
  mkdir -p "$1/root/models" "$1/tmp" "$1/proc" "$1/sys" "$1/dev"
  chmod 711 "$1/root"
  chmod 1777 "$1/tmp"
  # A volume that is made at the home belongs to the service, as the home does: keys lie in it.
  mkdir -p "$LAYERS/home"
  touch "$LAYERS/home/.keep"
}

# finish: dulian itself, the layers, what is in them, and whether they work.
step_finish() {
  "$BUILD/bin/python" -m pip --python "$APP/bin/python" install --quiet --disable-pip-version-check --no-compile \
    --no-deps --no-index "$BUILD"/wheel/*.whl
  trim "$(site)"
  find "$APP/bin" ! -type d ! -name dulian ! -name 'python*' -delete
  compile "$APP"
  rm -rf "$LAYERS/packages" "$LAYERS/app"
  mkdir -p "$LAYERS/packages/opt" "$LAYERS/app$(site)" "$LAYERS/app$APP/bin"
  cp -a "$APP" "$LAYERS/packages/opt/"
  mv "$LAYERS/packages$(site)"/dulian "$LAYERS/packages$(site)"/dulian-*.dist-info "$LAYERS/app$(site)/"
  mv "$LAYERS/packages$APP/bin/dulian" "$LAYERS/app$APP/bin/"
  sbom
  check
}

# What is in the image, as CycloneDX: Python's packages, Debian's, and the networks.
sbom() {
  [ -d "$BUILD/sbom" ] || python3 -m venv "$BUILD/sbom"
  pip "$BUILD/sbom/bin/python" sbom
  "$BUILD/sbom/bin/cyclonedx-py" environment "$APP/bin/python" --output-reproducible --output-format JSON \
    --output-file "$BUILD/python.cdx.json"
  "$BUILD/bin/dulian" models list --json --model-dir "$LAYERS/models$MODELS" >"$BUILD/models.jsonl"
  mkdir -p "$LAYERS/app/usr/share/dulian"
  "$BUILD/bin/python" "$SRC/tools/sbom.py" "$BUILD/python.cdx.json" "$BUILD/models.jsonl" \
    "$LAYERS/debian/var/lib/dpkg/status.d" >"$LAYERS/app$SBOM"
}

# The layers, put together, analyse a picture before they become an image.
check() {
  together=/check
  rm -rf "$together"
  mkdir "$together"
  for layer in debian packages models app; do cp -a "$LAYERS/$layer/." "$together/"; done
  cp "$SRC/deploy/docker/check.py" "$together/tmp/"
  cat /proc/cpuinfo >"$together/proc/cpuinfo"
  chroot --userspec $USER_ID:$USER_ID "$together" "$APP/bin/python" /tmp/check.py
  rm -rf "$together"
}

step=$1
shift
"step_$step" "$@"
