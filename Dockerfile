# The notebooks in JupyterLab, on CPUs, with the versions of constraints.txt.
#
#   docker build -t viptt .
#   docker run --rm -p 8888:8888 viptt      # prints an address with a token: open it, then book/notebooks or notebooks
#   docker run --rm viptt bash -c 'papermill notebooks/02_finetune.py out.ipynb -p epochs 50 && viptt summary out.ipynb'
#   docker run --rm -p 8888:8888 -v viptt-runs:/home/viptt/viptt-net/runs viptt      # keeps your runs
#
# The third line is `make demo`. No GPU, and no unpacker of .rar files: unpack UCF50 outside and mount it with -v.
# It needs no system package beyond those of the base image.
FROM python:3.12-slim

LABEL org.opencontainers.image.title="ViPTT-Net, reproducible" \
      org.opencontainers.image.description="A runnable re-implementation of ViPTT-Net. Research use only." \
      org.opencontainers.image.licenses="MIT"

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUTF8=1 \
    PATH=/home/viptt/venv/bin:$PATH

# `runs` is made here, so that a volume mounted on it belongs to the user, too.
RUN useradd --create-home --uid 1000 viptt \
    && install -d -o viptt -g viptt /home/viptt/viptt-net /home/viptt/viptt-net/runs
USER 1000
WORKDIR /home/viptt/viptt-net

# PyTorch first, in a layer that only new versions replace. PyPI's build for Linux brings 5 GB of CUDA; for an image
# without, give the address of PyTorch's own index for CPUs, see "Get started" on pytorch.org:
#   docker build --build-arg TORCH_INDEX=ADDRESS -t viptt .
# Without its dependencies, because that index has other versions of them: they follow.
ARG TORCH_INDEX=""
COPY --chown=viptt:viptt constraints.txt ./
RUN python -m venv /home/viptt/venv \
    && pip install --no-deps -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision

COPY --chown=viptt:viptt . ./
RUN pip install -c constraints.txt "jupyterlab>=4,<5" -e . \
    && jupytext-config set-default-viewer python

EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser"]
