"""Joins a Ray cluster, or starts a local one; what goes wrong with that is one clear error."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vitarium.core.errors import InvalidInput, VitariumError
from vitarium.core.numerals import is_number

SECONDS_TO_CONNECT = 5
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""HTTP/2's preface with empty settings, with which a gRPC server is greeted and answers in kind."""
_SETTINGS = b"\4"


class NoCluster(VitariumError):
    """There is no cluster where one was looked for, or none that can run our workers."""


def the_ray() -> Any:
    """The module `ray`. Raises InvalidInput where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as will be Ray's default
    try:
        import ray
    except ImportError:
        raise InvalidInput("the ray engine needs: pip install 'vitarium[ray]'") from None
    return ray


@contextmanager
def connected(address: str | None, cpus: int) -> Iterator[None]:
    """Be on a cluster for a while; a process that is on one already stays there.

    Args:
        address: HOST:PORT, or "auto" for the one that runs on this machine; None starts one on
            this machine, which ends with us.
        cpus: CPUs of the one that is started.

    Raises InvalidInput for what is no address, and NoCluster.
    """
    ray = the_ray()
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address not in (None, "auto"):
        _reach(str(address))
    try:
        if address is None:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except Exception as error:
        where, hint = f"at {address}" if address else "on this machine", ""
        # Ray sends its token to an address only if told to; that stays the user's decision
        if address not in (None, "auto") and "RAY_AUTH_MODE" not in os.environ:
            hint = "; if it is a cluster of yours with a token, set RAY_AUTH_MODE=token"
        raise NoCluster(f"no Ray cluster {where}: {_one_line(error)}{hint}") from None
    try:
        yield
    finally:
        ray.shutdown()


def capacity(cpus: int, gpus: float) -> int:
    """How many models with so many CPUs and GPUs each the cluster holds; NoCluster for 0."""
    nodes = [node["Resources"] for node in the_ray().nodes() if node["Alive"]]
    needed = {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
    models = sum(min(int(node.get(n, 0) / needed[n]) for n in needed) for node in nodes)
    if models:
        return models
    nodes_text = ", ".join(f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in nodes)
    raise NoCluster(
        f"no node of the cluster has {cpus} CPUs and {gpus:g} GPUs, which a model is to get; "
        f"its nodes have {nodes_text}"
    )


def _reach(address: str) -> None:
    """Raise at once what Ray would retry for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not is_number(port) or "/" in address:
        raise InvalidInput(f"'{address}' is not an address of a Ray cluster: auto, or HOST:PORT")
    try:
        with socket.create_connection((host, int(port)), SECONDS_TO_CONNECT) as connection:
            answers = os.environ.get("RAY_USE_TLS") == "1" or _is_grpc(connection)
    except (OSError, OverflowError) as error:
        raise NoCluster(f"no Ray cluster at {address}: {_one_line(error)}") from None
    if not answers:
        raise NoCluster(
            f"no Ray cluster at {address}: something else answers there "
            "(a cluster's own port is 6379 unless `ray start` was told another)"
        )


def _is_grpc(connection: socket.socket) -> bool:
    """Greet as gRPC does; its servers begin their answer with a frame of settings."""
    connection.settimeout(SECONDS_TO_CONNECT)
    connection.sendall(_GREETING)
    with connection.makefile("rb") as answer:
        return answer.read(4)[3:] == _SETTINGS


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
