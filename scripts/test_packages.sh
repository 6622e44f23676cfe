#!/bin/sh
# Installs the Debian packages that some tests use: a browser with its driver, an MQTT broker, mtools, sshd, strace,
# systemd-analyze.
# Needs root. Tests that miss one of them are skipped, with the reason.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends chromium chromium-driver mosquitto mtools openssh-client openssh-server openssl strace systemd
# The package starts a broker of its own, which the tests do not need.
if command -v systemctl >/dev/null && systemctl is-active --quiet mosquitto 2>/dev/null; then
    systemctl disable --now mosquitto
fi
