"""`/metrics`: beside the API, and on a listener of its own that serves nothing else."""

from __future__ import annotations

from quart import Response
from quart_trio import QuartTrio

from kasmos.api.access import Routes
from kasmos.api.app import the_service
from kasmos.api.errors import register_error_handlers
from kasmos.daemon.access import Needs
from kasmos.daemon.life import Exposition
from kasmos.exceptions import RequestError

routes = Routes("metrics")


@routes.get("/metrics", Needs.READ)
async def get_metrics() -> Response:
    """Everything that is counted, in the text format of Prometheus."""
    exposition = the_service().life.exposition
    if exposition is None:
        raise RequestError(404, "not_a_daemon", "only a daemon counts: this supervisor belongs to a `kas run`")
    return _answer(exposition)


def create_metrics_app(exposition: Exposition) -> QuartTrio:
    """An application that serves /metrics and nothing else, to whoever asks."""
    app = QuartTrio("kasmos.api.metrics", static_folder=None)
    register_error_handlers(app)

    async def metrics() -> Response:
        return _answer(exposition)

    app.add_url_rule("/metrics", view_func=metrics, methods=["GET"])
    return app


def _answer(exposition: Exposition) -> Response:
    return Response(exposition.render(), content_type=exposition.content_type)
