# Lifeboat's own image: its programs, its Python packages by their hashes, its code, in this order,
# so that a change of the code builds the last layers only.
#
# Where packages come from is this machine's affair: apt asks the mirror of the base image, pip what
# its own configuration says, handed over as a secret that no layer keeps (docker-compose.build.yml).
FROM debian:trixie-slim AS lifeboat

# Restore tests start a server, hence postgresql-17 and not its client alone. Its compiler for
# queries is 150 MB, and is asked for nothing here: without its file PostgreSQL does without it.
RUN apt-get update -qq \
 && apt-get install -qq --yes --no-install-recommends postgresql-common \
 && echo 'create_main_cluster = false' >> /etc/postgresql-common/createcluster.conf \
 && apt-get install -qq --yes --no-install-recommends \
      ca-certificates docker-cli docker-compose git openssh-client postgresql-17 python3 \
      python3-venv restic \
 && rm -rf /var/lib/apt/lists/* /usr/lib/postgresql/17/lib/bitcode \
      /usr/lib/postgresql/17/lib/llvmjit* /usr/lib/*/libLLVM* /usr/lib/*/libz3.so*
# PYTHONTZPATH: Prefect's server lists all time zones for each schedule that it reads. From the package
# tzdata that is one file; from the system's directory, thousands, and most of the server's time.
ENV PATH=/opt/lifeboat/.venv/bin:/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONTZPATH= \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /opt/lifeboat
COPY containers/install_packages.py requirements.lock /opt/build/
RUN --mount=type=secret,id=pip_config --mount=type=secret,id=pip_certificates \
    python3 -m venv .venv && .venv/bin/python /opt/build/install_packages.py image

COPY LICENSE README.md prefect.yaml pyproject.toml ./
COPY containers containers
COPY deployments deployments
COPY flows flows
COPY lifeboat lifeboat
COPY staging staging
COPY tasks tasks
RUN .venv/bin/pip install --quiet --no-build-isolation --no-deps --no-index --editable . \
 && .venv/bin/pip check \
 && ln -s /opt/lifeboat/.venv/bin/lifeboat /usr/local/bin/lifeboat

# By it a container of ours is known, which may write where no stranger may.
LABEL lifeboat="own"
WORKDIR /
ENTRYPOINT ["lifeboat"]
CMD ["--help"]

# The same with what makes the staging platform: an S3 store, and sample drawings and models.
FROM lifeboat AS lifeboat-staging
RUN --mount=type=secret,id=pip_config --mount=type=secret,id=pip_certificates \
    /opt/lifeboat/.venv/bin/python /opt/build/install_packages.py staging

FROM lifeboat
