"""What is seen from outside: Prometheus's page, read by Prometheus's own parser."""

import contextlib
import http.client
import socket

from prometheus_client.parser import text_string_to_metric_families


def figures(port):
    """(name, labels) -> value of the page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        families = list(text_string_to_metric_families(connection.getresponse().read().decode()))
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_requests_and_workers_are_counted(base, running, until, photo, unused_port):
    port = unused_port

    def healthy(wanted):
        assert "no metrics on port" not in server.log
        return figures(port)["kennel_healthy", ()] == wanted

    with running(base, KENNEL_METRICS_PORT=str(port), KENNEL_REQUEST_LOG="false") as server:
        server.wait_ready()
        assert server.invoke(b"no photo")[0] == 400
        assert server.invoke(photo())[0] == 200
        until(lambda: healthy(1), server)
        found = figures(port)
        invoked = {labels: value for (name, labels), value in found.items() if name == "kennel_requests_total"}
        assert invoked[("path", "/invocations"), ("status", "200")] == 2  # the first is `wait_ready`'s
        assert invoked[("path", "/invocations"), ("status", "400")] == 1
        assert found["kennel_workers", ()] == 1
        assert found["kennel_request_seconds_count", ()] == 3
        parts = [found[f"kennel_{part}_seconds_sum", ()] for part in ("decode", "inference", "queue")]
        assert 0 < sum(parts) <= found["kennel_request_seconds_sum", ()]
        assert '"id"' not in server.log, "the request log is off"
        for worker in server.scripts()[1:]:
            worker.kill()
        until(lambda: healthy(0), server)


def test_a_metrics_port_that_is_taken_costs_the_figures_only(base, running, photo):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with running(base, KENNEL_METRICS_PORT=port) as server:
            server.wait_ready()
            assert server.invoke(photo())[0] == 200
            assert f"no metrics on port {port}" in server.log
