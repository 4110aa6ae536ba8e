# scm-media in a container, for CPUs or for NVIDIA GPUs:
#   docker build -t scm-media .
#   docker build -t scm-media:cuda --build-arg DEVICE=cu130 .
#   docker run --rm -v "$PWD:/work" scm-media generate image/fashion -n 8 --out samples/
#   docker run --rm --gpus all --shm-size=2g -v "$PWD:/work" scm-media:cuda train mine.yaml
# Files are written as user 1000; --user "$(id -u):$(id -g)" writes them as you. Recipes name their data by absolute
# paths: propose them in the container (scm-media recipes --for FOLDER), where the current folder is /work.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
RUN pip install --no-cache-dir "build>=1.2" "setuptools>=77"
WORKDIR /source
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY configs configs
COPY recipes recipes
COPY models models
COPY modalities modalities
COPY scm_media scm_media
RUN python -m build --wheel --no-isolation --outdir /wheels

FROM python:${PYTHON}-slim
# cpu, or a CUDA version that https://download.pytorch.org/whl has builds of this torch for: cu126, cu130, cu132
ARG DEVICE=cpu
ARG TORCH=2.14.1
ARG TORCHVISION=0.29.1
ARG TORCHAUDIO=2.11.0
RUN pip install --no-cache-dir --extra-index-url "https://download.pytorch.org/whl/${DEVICE}" \
    "torch==${TORCH}+${DEVICE}" "torchvision==${TORCHVISION}+${DEVICE}"
COPY --from=build /wheels /wheels
# g++ is PyTorch's compiler for CPUs, and builds what starts Triton's kernels on GPUs.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN wheel="$(echo /wheels/*.whl)" && \
    pip install --no-cache-dir "${wheel}[audio,image,video]" "torchaudio==${TORCHAUDIO}" && \
    useradd --create-home --uid 1000 scm && mkdir /work && chown scm /work && chmod 1777 /home/scm
# Without HOME a user that --user names would keep caches in /, where it cannot write.
ENV HOME=/home/scm LC_ALL=C.UTF-8 PYTHONUNBUFFERED=1
USER scm
WORKDIR /work
ENTRYPOINT ["scm-media"]
CMD ["--help"]
