"""Several simulated resources in one process: regions with keys, deployments and limits of their own, one directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from types import TracebackType
from typing import Any

from .deployments import DEFAULT_DEPLOYMENTS, OTHER_DEPLOYMENTS, Deployment
from .faults import REGION
from .identity import Directory
from .served import Served
from .server import DEFAULT_KEY, Simulator

REGIONS = (
    "Australia East",
    "Canada East",
    "Central US",
    "East US",
    "East US 2",
    "France Central",
    "Germany West Central",
    "Japan East",
    "North Central US",
    "Norway East",
    "Poland Central",
    "South Central US",
    "Spain Central",
    "Sweden Central",
    "Switzerland North",
    "UK South",
    "West Europe",
    "West US",
    "West US 3",
)
"""As ``x-ms-region`` names them; each is also known by its short name, such as ``eastus2``."""

_SHORT = {region.lower().replace(" ", ""): region for region in REGIONS}
_OF_RESOURCE = {"region", "key", "port", "deployments", "tokens_per_minute", "requests_per_minute", "strict"}


def full_name(region: str) -> str:
    """Return a region as Azure's headers name it: ``eastus2`` is ``East US 2``. An unknown name stays as it is."""
    return _SHORT.get(region.lower().replace(" ", ""), region)


def key_of(key: str, region: str) -> str:
    """Return the key of a region's resource: *key*, a hyphen and the short name of the region."""
    return f"{key}-{region.lower().replace(' ', '')}"


class Subscription:
    """Resources that share a directory of Entra ID; a context manager that starts and stops them."""

    def __init__(self, resources: Iterable[Simulator], *, directory: Directory) -> None:
        self.resources: Sequence[Simulator] = list(resources)
        self.directory = directory

    @classmethod
    def of_regions(
        cls,
        regions: Iterable[str],
        *,
        key: str = DEFAULT_KEY,
        host: str = "127.0.0.1",
        port: int = 0,
        deployments: Iterable[Deployment | str] = (*DEFAULT_DEPLOYMENTS, *OTHER_DEPLOYMENTS),
        tokens_per_minute: int | None = None,
        requests_per_minute: int | None = None,
        clock: Callable[[], float] = time.time,
        remember: int = 10_000,
    ) -> Subscription:
        """Return one resource for each region, whose key is :func:`key_of` it.

        Args:
            port: Of the first one; the others have those behind it. 0 for any that are free.
        """
        directory = Directory(clock=clock)
        deployments = list(deployments)
        return cls(
            [
                Simulator(
                    key=key_of(key, region),
                    deployments=deployments,
                    host=host,
                    port=port and port + rank,
                    tokens_per_minute=tokens_per_minute,
                    requests_per_minute=requests_per_minute,
                    region=region,
                    directory=directory,
                    clock=clock,
                    remember=remember,
                )
                for rank, region in enumerate(map(full_name, regions))
            ],
            directory=directory,
        )

    @classmethod
    def from_json(
        cls, document: Any, *, host: str = "127.0.0.1", port: int = 0, remember: int = 10_000
    ) -> Subscription:
        """Read resources from ``{"resources": [{"region", "key", "port", "deployments", …}], "token_lifetime": …}``.

        A deployment is a name, or an object with the fields of a :class:`Deployment`. What is missing is as in
        :meth:`of_regions`.

        Raises:
            ValueError: a name or a value is not possible; the text names it.
        """
        if not isinstance(document, Mapping) or not isinstance(document.get("resources"), list):
            raise ValueError('the file has to be an object with a list of "resources"')
        directory = Directory(lifetime=float(document.get("token_lifetime", 3599)))
        resources = []
        for rank, entry in enumerate(document["resources"]):
            if not isinstance(entry, Mapping):
                raise ValueError(f"resources[{rank}] has to be an object")
            if unknown := entry.keys() - _OF_RESOURCE:
                raise ValueError(f"resources[{rank}] has no {', '.join(sorted(unknown))}")
            region = full_name(str(entry.get("region", REGION)))
            resources.append(
                Simulator(
                    key=str(entry.get("key", key_of(DEFAULT_KEY, region))),
                    deployments=[
                        _deployment(one, rank)
                        for one in entry.get("deployments", (*DEFAULT_DEPLOYMENTS, *OTHER_DEPLOYMENTS))
                    ],
                    host=host,
                    port=int(entry.get("port", port and port + rank)),
                    tokens_per_minute=entry.get("tokens_per_minute"),
                    requests_per_minute=entry.get("requests_per_minute"),
                    strict=entry.get("strict") is True,
                    region=region,
                    directory=directory,
                    remember=remember,
                )
            )
        if not resources:
            raise ValueError('"resources" is empty')
        return cls(resources, directory=directory)

    def __enter__(self) -> Subscription:
        for rank, resource in enumerate(self.resources):
            try:
                resource.start()
            except OSError:
                for started in self.resources[:rank]:
                    started.stop()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for resource in self.resources:
            resource.stop()

    @property
    def served(self) -> list[Served]:
        """What all resources have served, in the order of time."""
        return sorted((served for resource in self.resources for served in resource.served), key=lambda one: one.at)

    def reset(self) -> None:
        for resource in self.resources:
            resource.reset()


def _deployment(entry: Any, rank: int) -> Deployment:
    if isinstance(entry, str):
        return Deployment(entry)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise ValueError(f"resources[{rank}]: a deployment is a name, or an object with a name")
    if unknown := entry.keys() - {known.name for known in fields(Deployment)}:
        raise ValueError(f"resources[{rank}]: a deployment has no {', '.join(sorted(unknown))}")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    return Deployment(**values)
