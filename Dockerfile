# holo without a GPU. Build and use:
#
#   docker build -t holo .
#   docker run --rm -it -v "$PWD:/work" holo demo
#   docker run --rm -p 127.0.0.1:8000:8000 -e HOLO_API_KEY=... -v "$PWD:/work" holo serve --host 0.0.0.0
#
# On a machine with an NVIDIA GPU and its container toolkit: --build-arg TORCH_INDEX=https://pypi.org/simple
FROM python:3.11-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt constraints-cuda.txt ./
COPY configs configs
COPY holo_cli holo_cli
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# torch comes by version: the hash in constraints.txt is that of another build. The rest is checked.
RUN python -m venv /opt/holo \
    && /opt/holo/bin/pip install --index-url "$TORCH_INDEX" --no-deps \
        "$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)" \
    && sed '/^torch==/,/[^\\]$/d' constraints.txt > others.txt \
    && /opt/holo/bin/pip install --no-deps --require-hashes -r others.txt \
    && if [ "$TORCH_INDEX" = https://pypi.org/simple ]; then \
        /opt/holo/bin/pip install --no-deps --require-hashes -r constraints-cuda.txt; fi \
    && /opt/holo/bin/pip install --no-deps --no-build-isolation .

FROM python:3.11-slim
COPY --from=build /opt/holo /opt/holo
RUN useradd --create-home holo && mkdir /work && chown holo /work
USER holo
WORKDIR /work
ENV PATH=/opt/holo/bin:$PATH
ENTRYPOINT ["holo"]
CMD ["--help"]
