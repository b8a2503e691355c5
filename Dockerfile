# hubmerge in a container. TORCH_INDEX is PyTorch's index of the builds that you want: for CPUs, or for a version of CUDA. Without it
# torch comes from the default index, whose build for Linux has CUDA and is several GB large.
#   docker build --build-arg TORCH_INDEX=https://HOST/whl/cpu --tag hubmerge .
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

# torch first, so that no later requirement brings another build: 2.0+cpu of this index is preferred to 2.0 of the default one.
# The packages that torch needs come from the default index.
RUN python -m pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
RUN python -m pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]" \
    && useradd --create-home --uid 1000 merger

USER 1000
WORKDIR /work
ENTRYPOINT ["hubmerge"]
CMD ["--help"]
