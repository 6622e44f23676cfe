#!/bin/sh
# Installs the Debian packages that some tests use: a browser with its driver, an MQTT broker, mtools, nginx, sshd,
# strace, systemd-analyze.
# Needs root. Tests that miss one of them are skipped, with the reason.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends chromium chromium-driver mosquitto mtools nginx-light openssh-client openssh-server openssl strace systemd
# The packages start a broker and a web server of their own, which the tests do not need.
for service in mosquitto nginx; do
    if command -v systemctl >/dev/null && systemctl is-active --quiet $service 2>/dev/null; then
        systemctl disable --now $service
    fi
done
