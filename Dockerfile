# docker build -t pinion .
# docker run -p 8080:8080 -e PINION_API_KEY=change-me pinion
# docker run -p 8080:8080 -e PINION_API_KEY=change-me -v ./my-model:/models/my-model:ro pinion serve /models/my-model

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin pinion

FROM debian:bookworm-slim
RUN useradd --system --create-home --home-dir /var/lib/pinion --shell /usr/sbin/nologin pinion
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/pinion /usr/local/bin/pinion
USER pinion
WORKDIR /var/lib/pinion
VOLUME /var/lib/pinion
# Not a flag of CMD, so that it also holds for `docker run pinion serve PACKAGE`.
ENV PINION_LISTEN=0.0.0.0:8080
EXPOSE 8080
# SIGTERM drains: running requests may end before the container does.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10m --retries=3 \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /readyz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["pinion"]
CMD ["serve"]
