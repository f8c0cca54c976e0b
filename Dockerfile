# Three images: `docker build --target web .`, `--target worker` and `--target device`.
# web has no torch: it runs the web process, the coordinator and the timer. worker aggregates.
# Versions of packages are in the requirements files. The build downloads no model.

# Debian 13, whose PostgreSQL client has the version of the compose file's server.
FROM python:3.11.17-slim-trixie@sha256:45037981b62b34b44602584fccbc4d884d5f7dc92c7ee86bb38a698a79fe1e51 AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/venv/bin:$PATH
RUN groupadd --gid 10001 edgewise \
    && useradd --uid 10001 --gid edgewise --create-home edgewise
WORKDIR /app

FROM base AS common-packages
# An index for pip. CPU builds of torch make the worker's and the device's image several GB smaller.
ARG PIP_EXTRA_INDEX_URL=""
RUN python -m venv /venv
COPY requirements-common.txt constraints.txt ./

FROM common-packages AS web-packages
COPY requirements-web.txt ./
RUN --mount=type=cache,target=/root/.cache/pip pip install -r requirements-web.txt

FROM web-packages AS worker-packages
COPY requirements-device.txt ./
RUN --mount=type=cache,target=/root/.cache/pip pip install -r requirements-device.txt

FROM common-packages AS device-packages
COPY requirements-device.txt ./
RUN --mount=type=cache,target=/root/.cache/pip pip install -r requirements-device.txt

FROM base AS device
COPY --from=device-packages /venv /venv
COPY deploy/health.py deploy/
COPY fedcore fedcore
COPY workers/__init__.py workers/
COPY workers/agent workers/agent
RUN mkdir /state && chown edgewise: /state && chmod 700 /state
ENV EDGEWISE_STATE_DIR=/state HF_HOME=/state/huggingface
USER edgewise
VOLUME /state
HEALTHCHECK --interval=60s --timeout=20s --start-period=120s CMD ["python", "deploy/health.py", "device"]
ENTRYPOINT ["python", "-m", "workers.agent"]
CMD ["run"]

# What web and worker share: the code, the static files, and pg_dump for `manage.py backup`.
FROM base AS site
RUN apt-get update \
    && apt-get install -y --no-install-recommends postgresql-client-17 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=web-packages /venv /venv
COPY manage.py ./
COPY deploy/health.py deploy/
COPY fedcore fedcore
COPY webapp webapp
COPY workers workers
COPY templates templates
COPY static static
# Large bodies are spooled to TMPDIR, so it is on the volume and not in memory.
ENV DJANGO_SETTINGS_MODULE=webapp.settings EDGEWISE_STATIC_ROOT=/app/staticfiles \
    EDGEWISE_COMPRESS_STATIC=true \
    EDGEWISE_VAR_DIR=/var/lib/edgewise TMPDIR=/var/lib/edgewise/tmp \
    HF_HOME=/var/lib/edgewise/huggingface
RUN mkdir -p "$TMPDIR" \
    && python manage.py collectstatic --noinput --verbosity 0 \
    && chown -R edgewise: "$EDGEWISE_VAR_DIR"
USER edgewise
VOLUME /var/lib/edgewise

FROM site AS worker
COPY --from=worker-packages /venv /venv
CMD ["celery", "--app=workers.aggregate.app", "worker", "--queues=aggregate", "--hostname=aggregate@%h", "--concurrency=1", "--without-gossip", "--without-mingle", "--loglevel=INFO"]

FROM site AS web
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "deploy/health.py", "web"]
CMD ["uvicorn", "webapp.asgi:application", "--host=0.0.0.0", "--port=8000", "--workers=2", "--lifespan=off", "--no-access-log", "--no-proxy-headers", "--timeout-graceful-shutdown=10", "--ws=websockets-sansio", "--ws-max-size=262144", "--ws-per-message-deflate=false", "--ws-ping-interval=30", "--ws-ping-timeout=35"]
