# The images of digitgan, one target each:
#
#   podman build --target gateway --tag digitgan/gateway .
#
#   gateway       the HTTP API; no TensorFlow
#   models        the SavedModels, and the command that copies them into a volume: an init container
#   model-server  the embedded model server, where there is no TensorFlow Serving
#   trainer       `digitgan train` and the rest of the workshop; --build-arg DEVICE=gpu brings CUDA
#
# The final images begin from nothing: Python's own packages from Debian, the locked dependencies, then the code, in
# layers that change at different speeds. There is no shell, no package manager and no root in them, and process 1 is
# the program itself, so that SIGTERM reaches it.

# --- What the final images stand on ---------------------------------------------------------------------------------

FROM docker.io/library/debian:bookworm-slim AS debian
# Security fixes are what a rebuild is for, so versions are Debian's newest.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-pip python3-venv busybox-static \
 && rm -rf /var/lib/apt/lists/*

# Python and the libraries that it and the wheels link to, each unpacked as it comes. Vulnerability scanners read
# var/lib/dpkg/status.d.
FROM debian AS runtime
WORKDIR /packages
RUN apt-get update \
 && apt-get download \
      ca-certificates libbz2-1.0 libc6 libcrypt1 libexpat1 libffi8 libgcc-s1 liblzma5 libpython3.11-minimal \
      libpython3.11-stdlib libsqlite3-0 libssl3 libstdc++6 libuuid1 media-types netbase python3.11-minimal \
      tzdata zlib1g \
 && mkdir -p /runtime/var/lib/dpkg/status.d /runtime/tmp \
 && for package in *.deb; do \
      dpkg-deb --extract "$package" /runtime \
      && dpkg-deb --field "$package" > "/runtime/var/lib/dpkg/status.d/${package%%_*}" || exit 1; \
    done \
 && ln -s python3.11 /runtime/usr/bin/python3 \
 && chmod 1777 /runtime/tmp \
 && cp --parents /etc/ssl/certs/ca-certificates.crt /runtime \
 && echo 'digitgan:x:65532:65532::/tmp:/usr/sbin/nologin' > /runtime/etc/passwd \
 && echo 'digitgan:x:65532:' > /runtime/etc/group \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /runtime/usr
# Compiled once, here: where nothing can be written, Python would compile what it imports at each start.
RUN rm -rf share/bug share/doc share/lintian share/locale share/man lib/x86_64-linux-gnu/gconv \
      lib/python3.11/ensurepip lib/python3.11/lib2to3 lib/python3.11/pydoc_data lib/python3.11/test \
 && python3 -m compileall -q --invalidation-mode unchecked-hash lib/python3.11

FROM scratch AS python
COPY --from=runtime /runtime /
ENV PATH=/opt/venv/bin:/opt/digitgan/bin:/usr/bin \
    HOME=/tmp \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/digitgan \
    PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["python", "-m", "digitgan"]
ARG VERSION=0.1.0
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="scratch"

# --- What is built once, and copied from ------------------------------------------------------------------------------

# The dependencies of an extra, without the project: the packages are there, and empty. The lock constrains the build
# backend too.
FROM debian AS dependencies
WORKDIR /src
ENV PIP_CONSTRAINT=/src/requirements.lock \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
COPY pyproject.toml requirements.lock README.md LICENSE ./
RUN mkdir api digitgan serving training && python3 -m venv --without-pip /opt/venv

# A package's own tests, and what compiles against it, are nothing that a server needs.
FROM dependencies AS gateway-dependencies
RUN python3 -m pip --python /opt/venv/bin/python install --quiet '.[gateway,otel]' \
 && python3 -m pip --python /opt/venv/bin/python uninstall --quiet --yes digitgan \
 && find /opt/venv -depth -type d \( -name tests -o -name include -o -name f2py -o -name distutils \) -exec rm -rf {} + \
 && find /opt/venv -name '*.pyi' -delete

# It runs models in OpenVINO: there is no TensorFlow in it.
FROM dependencies AS model-server-dependencies
RUN python3 -m pip --python /opt/venv/bin/python install --quiet '.[model-server]' \
 && python3 -m pip --python /opt/venv/bin/python uninstall --quiet --yes digitgan

# On a CPU, TensorFlow's build without CUDA does: a third of the size.
FROM dependencies AS trainer-dependencies
ARG DEVICE=cpu
RUN case "$DEVICE" in \
      cpu) sed --in-place 's/\btensorflow\([>=]=\)/tensorflow-cpu\1/' pyproject.toml requirements.lock ;; \
      gpu) sed --in-place 's/\btensorflow>=/tensorflow[and-cuda]>=/' pyproject.toml ;; \
      *) echo "DEVICE is cpu or gpu, not $DEVICE" >&2; exit 1 ;; \
    esac \
 && python3 -m pip --python /opt/venv/bin/python install --quiet '.[training,model-server,gateway]' \
 && python3 -m pip --python /opt/venv/bin/python uninstall --quiet --yes digitgan \
 && rm -rf /opt/venv/lib/python3.11/site-packages/tensorflow/include

FROM dependencies AS code
COPY api api
COPY digitgan digitgan
COPY serving serving
COPY training training
# The command `digitgan` runs on the Python of the final images.
RUN python3 -m pip install --quiet --no-deps --target /opt/digitgan . \
 && sed --in-place '1s|.*|#!/opt/venv/bin/python|' /opt/digitgan/bin/digitgan

# What only other machines need stays out of the gateway: the models, and the code that makes them.
FROM code AS gateway-code
RUN rm -rf /opt/digitgan/training \
 && find /opt/digitgan/serving/pretrained -mindepth 1 ! -name '__init__.py' -delete

# Busybox does what its name says.
FROM debian AS copy
RUN mkdir -p /copy/bin && cp /bin/busybox /copy/bin/cp

# --- The images -------------------------------------------------------------------------------------------------------
# REVISION comes after the copies: builders keep the label of an earlier commit until a step before it changes.

# The base directory to ship: the pretrained models, or what `digitgan train` left, below models/.
FROM scratch AS models
ARG MODELS=serving/pretrained
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="digitgan models" \
      org.opencontainers.image.description="SavedModels, and the command that copies them into a volume" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=copy /copy /
COPY ${MODELS} /models
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="${REVISION}"
USER 65532:65532
ENTRYPOINT ["/bin/cp", "-R", "/models/."]
CMD ["/srv/models"]

FROM python AS gateway
LABEL org.opencontainers.image.title="digitgan gateway" \
      org.opencontainers.image.description="PNG digits over HTTP from a model server; no TensorFlow inside"
COPY --from=gateway-dependencies /opt/venv /opt/venv
COPY --from=gateway-code /opt/digitgan /opt/digitgan
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="${REVISION}"
ENV DIGITGAN_HOST=0.0.0.0
EXPOSE 8000
CMD ["gateway"]

FROM python AS model-server
LABEL org.opencontainers.image.title="digitgan model server" \
      org.opencontainers.image.description="The embedded model server: TensorFlow Serving's gRPC API"
COPY --from=model-server-dependencies /opt/venv /opt/venv
COPY --from=code /opt/digitgan /opt/digitgan
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="${REVISION}"
EXPOSE 8500
CMD ["serve", "--host", "0.0.0.0"]

FROM python AS trainer
LABEL org.opencontainers.image.title="digitgan trainer" \
      org.opencontainers.image.description="Trains the networks, evaluates them and exports SavedModels"
COPY --from=trainer-dependencies /opt/venv /opt/venv
COPY --from=code /opt/digitgan /opt/digitgan
ARG REVISION=unknown
LABEL org.opencontainers.image.revision="${REVISION}"
WORKDIR /work
CMD ["train", "--help"]
