# kitd as an image; docs/containers.md says how to build, check and run it. `make image` gives the
# arguments. A release names its base by digest: PYTHON_IMAGE=docker.io/library/python@sha256:...
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all:
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/kitd
WORKDIR /src
# Nothing but what the locks have by hash is installed, and no build scripts of dependencies run.
COPY requirements.lock requirements-build.lock ./
RUN /build/bin/pip install --require-hashes -r requirements-build.lock \
    && /build/bin/pip wheel --require-hashes --wheel-dir /wheels -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY systemd systemd
COPY kitd kitd
# The wheel brings the manual pages, which are made of these and of the commands.
COPY docs/man.py docs/man_hook.py docs/configuration.md docs/
# The same bytes as the wheel of `make dist`, if this is the time of the same commit.
ARG SOURCE_DATE_EPOCH
RUN /build/bin/python -m build --no-isolation --wheel --outdir /wheels . \
    && /build/bin/pip --python /opt/kitd install --no-index --no-deps --no-compile /wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG UID=65532
ARG GID=65532
# No pip in the result. The directories are also for any user in group 0: some platforms give each
# tenant a user id of its own and that group.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* \
        /usr/local/lib/python3*/ensurepip /usr/lib/python3*/ensurepip /usr/share/python-wheels \
    && echo "kitd:x:${GID}:" >> /etc/group \
    && echo "kitd:x:${UID}:${GID}:kitd:/var/lib/kitd:/usr/sbin/nologin" >> /etc/passwd \
    && install -d -o "${UID}" -g 0 -m 0770 /var/lib/kitd /projects \
    && install -d -o "${UID}" -g 0 -m 0775 /run/kitd \
    && install -d /etc/kitd \
    && echo '# Nothing is configured: mount a file over this one, or a directory over /etc/kitd.' \
        > /etc/kitd/kitd.yaml
COPY --from=build /opt/kitd /opt/kitd
ENV PATH=/opt/kitd/bin:$PATH \
    HOME=/var/lib/kitd \
    KITD_CONFIG=/etc/kitd/kitd.yaml \
    KITD_STATE_DIR=/var/lib/kitd \
    KITD_SOCKET=/run/kitd/kitd.sock
# The root is read-only later on: what is not compiled now would be compiled at every start. Not by
# time stamps, which builds of the same sources do not share.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /opt/kitd/lib \
    && kitd check-config && kitctl version

ARG VERSION
ARG REVISION
ARG SOURCE
ARG CREATED
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="kitd" \
      org.opencontainers.image.description="An always-on packaging daemon for AI/ML projects" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
USER ${UID}:${GID}
WORKDIR /projects
VOLUME ["/var/lib/kitd", "/run/kitd", "/projects"]
STOPSIGNAL SIGTERM
# A large ledger is backed up before it is upgraded: the first answer may take a while.
HEALTHCHECK --interval=30s --timeout=10s --start-period=5m --retries=3 CMD ["kitctl", "status"]
ENTRYPOINT ["kitd"]
CMD ["serve"]
