# hubmerge in a container. The CPU build of torch by default; for a GPU name an index with CUDA builds:
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 --tag hubmerge:cuda .
#   docker run --rm --gpus all -e HF_TOKEN -v "$PWD:/work" hubmerge:cuda run recipe.yaml
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=hub,sign

WORKDIR /opt/hubmerge
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY merge_recipes merge_recipes
COPY hubmerge hubmerge
COPY recipes recipes

# torch first, so that no later requirement brings another build: 2.0+cpu of this index is preferred to 2.0 of the default one,
# which has its CUDA build. The packages that torch needs come from the default index.
RUN python -m pip install --no-cache-dir --constraint constraints.txt --extra-index-url "$TORCH_INDEX" torch
RUN python -m pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]" \
    && useradd --create-home --uid 1000 merger

USER 1000
WORKDIR /work
ENTRYPOINT ["hubmerge"]
CMD ["--help"]
