# din-score on CPUs, without root, under 400 MB: `make image`, docs/docker.md.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim-bookworm AS builder
# what compiles is in no layer of the image
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev
WORKDIR /src
COPY . .
# an environment without pip, at the path that it has in the image
ENV DIN_NVCC="" PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /opt/din-infer \
 && pip --python /opt/din-infer/bin/python install --constraint constraints.txt ".[cpu,batch]"
# 110 MB that no command here loads: Arrow's network protocols and headers, tools that
# rewrite models, the tests of each package
ARG PYTHON
WORKDIR /opt/din-infer/lib/python${PYTHON}/site-packages
RUN rm -r pyarrow/include pyarrow/*flight* pyarrow/*s3* \
          onnxruntime/transformers onnxruntime/quantization onnxruntime/tools \
 && find . -type d -name tests -prune -exec rm -r {} + \
 && /opt/din-infer/bin/python -c "import din_infer.jobs.files, pyarrow.parquet, pyarrow.csv, pyarrow.json" \
 && /opt/din-infer/bin/python -m din_infer

FROM python:${PYTHON}-slim-bookworm
LABEL org.opencontainers.image.title="din-infer" \
      org.opencontainers.image.description="Deep Interest Network click models on ONNX Runtime" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/din-infer/din-infer"
COPY --from=builder /opt/din-infer /opt/din-infer
ENV PATH=/opt/din-infer/bin:$PATH PYTHONUNBUFFERED=1
# a number, so that an orchestrator can see that it is not root
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["din-score"]
CMD ["--help"]
