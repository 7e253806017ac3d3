# Two stages: build with everything that the native libraries need, on what scripts/dist saw the program do, and ship the
# binary alone.
#
#   docker build -t sallyport .
#   install -d -o 65532 -g 65532 gate                                                  # once, as root
#   docker run --rm -v "$PWD/gate:/etc/sallyport" sallyport init /etc/sallyport        # once: a configuration to edit
#   docker run -v "$PWD/gate:/etc/sallyport" -v sallyport-data:/var/lib/sallyport -p 5432:5432 sallyport
#
# In the configuration, set data_dir = "/var/lib/sallyport" and listen on 0.0.0.0 (ports over 1024, or add the
# capability NET_BIND_SERVICE). The user is 65532: the mounted folder is its own, since it writes it once and reads
# the private key in it. An issuer of kind "dev" is refused there: it is for listeners on loopback alone.

FROM rust:1-bookworm AS build
# libclang: bindings of RocksDB and of PostgreSQL's grammar. cmake: AWS-LC. The server is what scripts/dist works against.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libclang-dev cmake pkg-config python3 postgresql postgresql-client \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
# The caches survive between builds and are not part of the image: so the binary is copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    built=$(CARGO_TARGET_DIR=/build/target scripts/dist) \
    && cp "$built/sallyport" /usr/local/bin/sallyport

FROM debian:bookworm-slim
# CA certificates for OpenID discovery and for targets with public certificates. libstdc++: RocksDB.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 sallyport \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin sallyport \
    && install -d -o sallyport -g sallyport -m 0700 /var/lib/sallyport
COPY --from=build /usr/local/bin/sallyport /usr/bin/sallyport
USER 65532:65532
WORKDIR /etc/sallyport
VOLUME /var/lib/sallyport
ENV SALLYPORT_CONFIG=/etc/sallyport/sallyport.toml
# Stops gracefully: running requests finish within [limits] drain_timeout. Give `docker stop -t` more than that.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["sallyport", "healthcheck"]
ENTRYPOINT ["/usr/bin/sallyport"]
CMD ["serve"]
