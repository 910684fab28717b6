# syntax=docker/dockerfile:1
# One file, one target per program:
#   docker build --target operator|sandboxd|backend|integrated-server|frontend .
# PYTHON_IMAGE is any image with python3 >= 3.11 and its venv module. Where no image registry is
# reached, `capibara-devcluster build-images` makes one from Debian packages and builds on that.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The shipped environment holds no pip: the one of a throw-away environment fills it.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/capibara

# Our own code is a layer apart, so that a change of it leaves the large ones alone.
FROM builder AS app
COPY requirements/build.txt requirements/
RUN /opt/build/bin/pip install --quiet --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md ./
COPY operator operator
COPY sandboxd sandboxd
COPY services services
COPY devcluster devcluster
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/build/bin/pip --python /opt/capibara install --quiet --no-deps --no-index --target /opt/app /dist/*.whl

FROM builder AS operator-env
COPY requirements/operator.txt requirements/
RUN /opt/build/bin/pip --python /opt/capibara install --quiet --require-hashes -r requirements/operator.txt

FROM builder AS sandboxd-env
COPY requirements/sandboxd.txt requirements/
RUN /opt/build/bin/pip --python /opt/capibara install --quiet --require-hashes -r requirements/sandboxd.txt

FROM builder AS services-env
COPY requirements/services.txt requirements/
RUN /opt/build/bin/pip --python /opt/capibara install --quiet --require-hashes -r requirements/services.txt

FROM ${PYTHON_IMAGE} AS runtime
LABEL org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/app/bin:/opt/capibara/bin:$PATH PYTHONPATH=/opt/app \
    PYTHONUNBUFFERED=1 HOME=/tmp
WORKDIR /tmp

FROM runtime AS operator
LABEL org.opencontainers.image.title="capibara-operator"
COPY --from=operator-env /opt/capibara /opt/capibara
COPY --from=app /opt/app /opt/app
USER 65532:65532
ENTRYPOINT ["capibara-operator"]
CMD ["run"]

# Root inside its container: it makes the namespaces of the sandboxes (docs/install.md).
FROM runtime AS sandboxd
LABEL org.opencontainers.image.title="capibara-sandboxd"
COPY --from=sandboxd-env /opt/capibara /opt/capibara
COPY --from=app /opt/app /opt/app
EXPOSE 3000
ENTRYPOINT ["capibara-sandboxd"]
CMD ["serve", "--host", "0.0.0.0", "--port", "3000"]

FROM runtime AS services
COPY --from=services-env /opt/capibara /opt/capibara
COPY --from=app /opt/app /opt/app
USER 65532:65532

FROM services AS backend
LABEL org.opencontainers.image.title="capibara6-backend"
EXPOSE 8000
ENTRYPOINT ["python3", "-m", "capibara_services.backend"]

FROM services AS integrated-server
LABEL org.opencontainers.image.title="capibara6-integrated-server"
EXPOSE 5001
ENTRYPOINT ["python3", "-m", "capibara_services.integrated_server"]

FROM services AS frontend
LABEL org.opencontainers.image.title="capibara6-frontend"
EXPOSE 8080
ENTRYPOINT ["python3", "-m", "capibara_services.frontend"]
