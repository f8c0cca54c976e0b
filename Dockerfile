# Two images: `docker build --target server .` and `docker build --target device .`
# Versions are in the requirements files. The build downloads no model.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/venv/bin:$PATH
RUN groupadd --gid 10001 edgewise \
    && useradd --uid 10001 --gid edgewise --create-home edgewise
WORKDIR /app

FROM base AS device-packages
# An index for pip. CPU builds of torch make the images several GB smaller.
ARG PIP_EXTRA_INDEX_URL=""
RUN python -m venv /venv
COPY requirements-device.txt constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip pip install -r requirements-device.txt

FROM device-packages AS server-packages
COPY requirements.txt ./
RUN --mount=type=cache,target=/root/.cache/pip pip install -r requirements.txt

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

FROM base AS server
COPY --from=server-packages /venv /venv
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
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "deploy/health.py", "web"]
CMD ["uvicorn", "webapp.asgi:application", "--host=0.0.0.0", "--port=8000", "--workers=2", "--lifespan=off", "--no-access-log", "--proxy-headers", "--timeout-graceful-shutdown=10"]
