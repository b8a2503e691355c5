# hubmerge in a container. The CPU build of torch by default; for a GPU name an index with CUDA builds:
#   docker build --build-arg TORCH_INDEX=https://HOST/whl/cu128 --tag hubmerge:cuda .
#   docker run --rm --gpus all -e HF_TOKEN -v "$PWD:/work" hubmerge:cuda run recipe.yaml
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG TORCH_INDEX=""
ARG EXTRAS=hub,sign

WORKDIR /opt/hubmerge
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY merge_recipes merge_recipes
COPY hubmerge hubmerge
COPY recipes recipes

# torch first, from its own index, so that no later requirement brings another build.
RUN if [ -n "$TORCH_INDEX" ]; then export PIP_INDEX_URL="$TORCH_INDEX"; fi \
    && python -m pip install --no-cache-dir --constraint constraints.txt torch
RUN python -m pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]" \
    && useradd --create-home --uid 1000 merger

USER 1000
WORKDIR /work
ENTRYPOINT ["hubmerge"]
CMD ["--help"]
