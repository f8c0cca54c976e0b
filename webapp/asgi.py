"""The web process: HTTP through Django, WebSockets through Channels."""

from __future__ import annotations

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
django_application = get_asgi_application()

# Both need Django set up.
from webapp.api.device.calls import DeviceCalls  # noqa: E402
from webapp.api.device.intake import BoundedBodies  # noqa: E402
from webapp.api.device.upload import Uploads  # noqa: E402
from webapp.api.health import Health  # noqa: E402
from webapp.line.application import DeviceLines  # noqa: E402
from webapp.line.hub import Hub  # noqa: E402
from webapp.line.polling import LinePolls  # noqa: E402
from webapp.pages.live.routing import websocket_urlpatterns  # noqa: E402
from webapp.transfer.file_responses import FileResponses  # noqa: E402
from webapp.transfer.forwarded_headers import ForwardedHeaders  # noqa: E402
from webapp.transfer.signed_verdicts import SignedVerdicts  # noqa: E402

hub = Hub()
http = Health(
    LinePolls(Uploads(FileResponses(BoundedBodies(DeviceCalls(django_application)))), hub)
)
websocket = DeviceLines(
    AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))), hub
)
application = ForwardedHeaders(
    SignedVerdicts(ProtocolTypeRouter({"http": http, "websocket": websocket}))
)
