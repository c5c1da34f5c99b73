# syntax=docker/dockerfile:1

# RocksDB is C++ and its bindings are made with libclang. The caches keep both compiled between
# builds of the image; the binary is copied out because a cache is not part of the image.
FROM rust:1-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --workspace --locked \
    && install -D target/release/rangedb /out/rangedb

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --no-create-home --shell /usr/sbin/nologin rangedb \
    && install -d -o rangedb -g rangedb /data
COPY --from=build /out/rangedb /usr/local/bin/rangedb
COPY LICENSE /usr/share/doc/rangedb/LICENSE
USER 1000:1000
# The server's default data directory is ./data: /data/data, beside what a volume may hold of its
# own (lost+found).
WORKDIR /data
VOLUME /data
# A published port reaches the container by another address than that which the node was given.
ENV RANGEDB_LISTEN_HOST=*
# Peers, clients, and status (metrics and health).
EXPOSE 8080 8081 8085
# SIGTERM hands leaderships over first, bounded at 30 s: `docker stop --time 40`.
STOPSIGNAL SIGTERM
# Asks RANGEDB_ENDPOINTS, by default 127.0.0.1:8081: set it where --client-address is another.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s \
    CMD ["rangedb", "--timeout", "5s", "admin", "cluster", "status"]
ENTRYPOINT ["rangedb"]
