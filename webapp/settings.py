"""All settings of the web processes, read from the environment in this one file.

An invalid value stops the start. ``docs/reference/settings.md`` lists every variable.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from webapp.common.rate import Rate
from webapp.common.settings_checks import (
    check_line_limits,
    check_public_url,
    check_retention,
    trusted_networks,
    verified_redis_url,
)

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()

DEBUG = env.bool("EDGEWISE_DEBUG", default=False)
VAR_DIR = Path(env.str("EDGEWISE_VAR_DIR", default=str(BASE_DIR / "var")))
SECRET_KEY = env.str("EDGEWISE_SECRET_KEY", default="")
if not SECRET_KEY:
    if not DEBUG and env.str("DATABASE_URL", default=""):
        raise ImproperlyConfigured("set EDGEWISE_SECRET_KEY to a long random string")
    SECRET_KEY = "insecure-for-development-and-tests-only-never-for-a-real-site-0123456789"

# Public address of this site, for devices and people; printed in the enrolment command.
PUBLIC_URL = env.str("EDGEWISE_URL", default="http://127.0.0.1:8000").rstrip("/")
check_public_url(PUBLIC_URL)
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
TLS = PUBLIC_URL.startswith("https://")
# Whose X-Forwarded-For and X-Forwarded-Proto count (webapp.transfer.forwarded_headers).
TRUSTED_PROXIES = trusted_networks(env.list("EDGEWISE_TRUSTED_PROXIES", default=[]))
_local = ["localhost", "127.0.0.1", "[::1]"]
ALLOWED_HOSTS = env.list("EDGEWISE_HOSTS", default=[*_local, str(urlsplit(PUBLIC_URL).hostname)])

# Its runserver speaks WebSocket. Production has uvicorn instead.
DEVELOPMENT_APPS = ["daphne"] if DEBUG else []
INSTALLED_APPS = [
    *DEVELOPMENT_APPS,
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "webapp.common.static_files.StaticFiles",
    "django.contrib.humanize",
    "axes",
    "channels",
    "csp",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "knox",
    "rest_framework",
    "webapp.accounts",
    "webapp.devices",
    "webapp.jobs",
    "webapp.telemetry",
    "webapp.pages",
    "webapp.api",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
    "webapp.accounts.too_many.TooManyRequestsMiddleware",
]

ROOT_URLCONF = "webapp.urls"
ASGI_APPLICATION = "webapp.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# How long a process waits for a busy or unreachable database before it gives up.
_database_timeout_s = env.float("EDGEWISE_DATABASE_TIMEOUT_S", default=20.0)
_sqlite = f"sqlite:///{VAR_DIR / 'edgewise.sqlite3'}"
DATABASES = {"default": env.db_url("DATABASE_URL", default=_sqlite)}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["OPTIONS"] = {
        "timeout": _database_timeout_s,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
else:
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    DATABASES["default"]["OPTIONS"] = {
        "pool": {"min_size": 0, "max_size": 16, "timeout": _database_timeout_s}
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "webapp.accounts.backends.PasswordLimitBackend",
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
PASSWORD_HASHERS = [
    "webapp.accounts.hashers.BoundedArgon2",
    "webapp.accounts.hashers.BoundedPBKDF2",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "overview"
LOGOUT_REDIRECT_URL = "login"
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_CALLABLE = "webapp.accounts.too_many.locked_out"
AXES_CLIENT_IP_CALLABLE = "webapp.common.client_address.lock_address"
AXES_ENABLE_ACCESS_FAILURE_LOG = False
# Attempts per client address and web process (webapp.common.address_limits).
PASSWORD_RATE = Rate.parse(
    "EDGEWISE_THROTTLE_LOGIN", env.str("EDGEWISE_THROTTLE_LOGIN", default="30/min")
)
ENROL_RATE = Rate.parse(
    "EDGEWISE_THROTTLE_ENROL", env.str("EDGEWISE_THROTTLE_ENROL", default="60/min")
)

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = TLS
SECURE_SSL_REDIRECT = TLS and env.bool("EDGEWISE_SSL_REDIRECT", default=True)
SECURE_HSTS_SECONDS = 31_536_000 if TLS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = TLS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TLS else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "manifest-src": [SELF],
    }
}

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
# A container image brings its static files; elsewhere they lie beside the data.
STATIC_ROOT = Path(env.str("EDGEWISE_STATIC_ROOT", default=str(VAR_DIR / "static")))
STATICFILES_DIRS = [BASE_DIR / "static"]

# Artefacts: a local folder, or any S3-compatible bucket.
# With less than this free the server's disk counts as full: no round starts.
MIN_FREE_BYTES = env.int("EDGEWISE_MIN_FREE_BYTES", default=256_000_000)
ARTEFACT_MAX_BYTES = env.int("EDGEWISE_ARTEFACT_MAX_BYTES", default=20 * 2**30)
# An upload slower than UPLOAD_MIN_BPS over a window of UPLOAD_WINDOW_S is refused with 408.
UPLOAD_WINDOW_S = env.float("EDGEWISE_UPLOAD_WINDOW_S", default=30.0)
UPLOAD_MIN_BPS = env.float("EDGEWISE_UPLOAD_MIN_BPS", default=1000.0)
# Send downloads by the proxy (from a local folder) or the bucket, not by the web process.
X_ACCEL_PREFIX = env.str("EDGEWISE_X_ACCEL_PREFIX", default="")
if X_ACCEL_PREFIX and not (X_ACCEL_PREFIX[0] == X_ACCEL_PREFIX[-1] == "/"):
    raise ImproperlyConfigured("EDGEWISE_X_ACCEL_PREFIX must begin and end with a slash")
S3_REDIRECT = env.bool("EDGEWISE_S3_REDIRECT", default=False)
_bucket = env.str("EDGEWISE_S3_BUCKET", default="")
_artefacts: dict[str, object] = {
    "BACKEND": "webapp.jobs.artefacts.atomic_storage.AtomicFileSystemStorage",
    "OPTIONS": {"location": str(VAR_DIR / "artefacts"), "base_url": None},
}
if _bucket:
    _artefacts = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": _bucket,
            "endpoint_url": env.str("EDGEWISE_S3_ENDPOINT", default=None),
            "signature_version": "s3v4",
            "file_overwrite": True,
            # Larger downloads through this process are buffered on disk.
            "max_memory_size": 2**20,
        },
    }
# Compressing takes a minute on a small machine, so only image builds do it.
_static_backend = "django.contrib.staticfiles.storage.StaticFilesStorage"
if env.bool("EDGEWISE_COMPRESS_STATIC", default=False):
    _static_backend = "whitenoise.storage.CompressedManifestStaticFilesStorage"
elif not DEBUG:
    _static_backend = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
STORAGES = {
    "default": _artefacts,
    "artefacts": _artefacts,
    "staticfiles": {"BACKEND": _static_backend},
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 2**20
FILE_UPLOAD_MAX_MEMORY_SIZE = 2 * 2**20
FILE_UPLOAD_TEMP_DIR = env.str("EDGEWISE_UPLOAD_TEMP_DIR", default=None)


# The site's broker: queues, cache, live pages, messages to devices. No device reaches it.
REDIS_URL = verified_redis_url(
    env.str("REDIS_URL", default="redis://127.0.0.1:6379/0"),
    env.str("REDIS_CA_FILE", default=""),
)
CACHES = {"default": {"BACKEND": "webapp.common.cache.TolerantRedisCache", "LOCATION": REDIS_URL}}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": "edgewise"},
    }
}
# Retention (docs/explanation/recovery.md). Zero models would remove a running job's base.
KEEP_MODELS = env.int("EDGEWISE_KEEP_MODELS", default=3)
KEEP_UPDATES_H = env.float("EDGEWISE_KEEP_UPDATES_H", default=0.0)
COLLECT_GRACE_H = env.float("EDGEWISE_COLLECT_GRACE_H", default=1.0)
COLLECT_INTERVAL_S = env.float("EDGEWISE_COLLECT_INTERVAL_S", default=300.0)
# Ages at which samples are merged to one per 10 s, to one per minute, and dropped.
KEEP_SAMPLES_H = env.float("EDGEWISE_KEEP_SAMPLES_H", default=24.0)
KEEP_SAMPLES_10S_H = env.float("EDGEWISE_KEEP_SAMPLES_10S_H", default=24.0 * 7)
KEEP_SAMPLES_1MIN_H = env.float("EDGEWISE_KEEP_SAMPLES_1MIN_H", default=24.0 * 365)
KEEP_EVENTS_H = env.float("EDGEWISE_KEEP_EVENTS_H", default=24.0 * 365)
check_retention(
    (KEEP_MODELS, KEEP_UPDATES_H, COLLECT_GRACE_H, COLLECT_INTERVAL_S),
    (KEEP_SAMPLES_H, KEEP_SAMPLES_10S_H, KEEP_SAMPLES_1MIN_H),
)
# With several aggregation workers, a larger aggregation is split into shards of this size.
AGGREGATE_WORKERS = env.int("EDGEWISE_AGGREGATE_WORKERS", default=1)
FOLD_SHARD_BYTES = env.int("EDGEWISE_FOLD_SHARD_BYTES", default=8 * 2**30)
RECONCILE_INTERVAL_S = env.float("EDGEWISE_RECONCILE_INTERVAL_S", default=2.0)
# A ping of the site every 30 s, answered within 35 s (fedcore.formats.line_messages).
OFFLINE_AFTER_S = env.float("EDGEWISE_OFFLINE_AFTER_S", default=65.0)
# Limits of one device's line (webapp.line.limits): whoever exceeds them is slowed, then cut.
LINE_MESSAGES_PER_S = env.float("EDGEWISE_LINE_MESSAGES_PER_S", default=50.0)
LINE_BYTES_PER_S = env.float("EDGEWISE_LINE_BYTES_PER_S", default=256_000.0)
LINE_PATIENCE_S = env.float("EDGEWISE_LINE_PATIENCE_S", default=30.0)
check_line_limits(LINE_MESSAGES_PER_S, LINE_BYTES_PER_S, LINE_PATIENCE_S)
# Ed25519 key that signs tasks for devices; created at first use.
SIGNING_KEY_FILE = Path(
    env.str("EDGEWISE_SIGNING_KEY_FILE", default=str(VAR_DIR / "signing-key.pem"))
)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "webapp.api.authentication.PersonTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["webapp.api.role_permission.RolePermission"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "webapp.api.pagination.Pages",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_THROTTLE_CLASSES": ["webapp.api.people_throttle.PeopleThrottle"],
    "DEFAULT_THROTTLE_RATES": {
        "people": env.str("EDGEWISE_THROTTLE_PEOPLE", default="1200/min"),
        "device": env.str("EDGEWISE_THROTTLE_DEVICE", default="6000/min"),
    },
    "EXCEPTION_HANDLER": "webapp.api.problems.problem_response",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
# ``webapp.api.schema`` adds hooks and enum names.
SPECTACULAR_SETTINGS = {
    "TITLE": "Edgewise",
    "DESCRIPTION": "Federated fine-tuning of FLAN-T5 on edge devices. "
    "Everything the pages do can be done here.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    # Component names of enums that several fields share; the deploy check reads them here.
    "ENUM_NAME_OVERRIDES": {
        "PersonRole": "webapp.accounts.models.Role",
        "DeviceRole": "webapp.devices.models.DeviceRole",
        "JobPhase": "webapp.api.schema.JOB_PHASES",
        "RoundPhase": "webapp.api.schema.ROUND_PHASES",
        "AssignmentPhase": "webapp.api.schema.ASSIGNMENT_PHASES",
    },
}
KNOX_TOKEN_MODEL = "accounts.PersonToken"
REST_KNOX = {"TOKEN_TTL": None, "AUTH_HEADER_PREFIX": "Token"}

LOG_LEVEL = env.str("EDGEWISE_LOG_LEVEL", default="INFO")
# Celery's lines for each task: a reconcile pass every two seconds would write 12 MB a day.
_task_level = "WARNING" if LOG_LEVEL == "INFO" else LOG_LEVEL
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "filters": {"no-device-connections": {"()": "webapp.common.log_filters.DeviceConnections"}},
    "loggers": {
        "uvicorn.error": {"filters": ["no-device-connections"]},
        **{name: {"level": _task_level} for name in ("celery.worker.strategy", "celery.app.trace")},
    },
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
}

VAR_DIR.mkdir(parents=True, exist_ok=True)
