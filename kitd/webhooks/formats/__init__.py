"""What each sender writes: one module a format, without I/O, and the list of them all."""

from collections.abc import Mapping

from kitd.webhooks.format import Format
from kitd.webhooks.formats import (
    acr,
    alibaba,
    artifactory,
    distribution,
    dockerhub,
    ecr,
    eventgrid,
    gar,
    generic,
    gitea,
    github,
    harbor,
    quay,
    zot,
)

FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        distribution.FORMAT,
        distribution.GITLAB,
        harbor.FORMAT,
        dockerhub.FORMAT,
        github.FORMAT,
        quay.FORMAT,
        acr.FORMAT,
        eventgrid.FORMAT,
        ecr.FORMAT,
        gar.FORMAT,
        zot.FORMAT,
        gitea.FORMAT,
        artifactory.FORMAT,
        alibaba.FORMAT,
        generic.FORMAT,
    )
}
"""By the name that `format:` in the configuration has."""
