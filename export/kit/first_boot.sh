#!/bin/sh
# Run once by cloud-init at the first boot, as root: installs the kit, puts the bundle on, starts the service.
# What it did stands in setup.log beside it, on the card's boot partition, where any computer can read it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
prefix=@PREFIX@ box=@BOX@ units=@UNITS@ site=@SITE@
exec >>"$here/setup.log" 2>&1
echo "first boot of @ID@"

fail() {
    echo "not set up: $1; mend it and run again: sudo sh $here/first_boot.sh"
    sync
    exit 3
}

sh "$here/kit/install.sh" "$prefix" || fail "the kit was not installed"
mkdir -p "$(dirname "$box")"
edgewright=$prefix/current/bin/edgewright
"$edgewright" flash "$here/bundle" "$box" || fail "the bundle was not put on"
if [ -n "$site" ]; then
    mkdir -p "$(dirname "$site")"
    cp "$here/site.yaml" "$site"
fi
"$edgewright" box unit "$box" @OPTIONS@ >"$units/edgewright.service" || fail "there is no service for this site"
"$edgewright" doctor "$box" ${site:+--site "$site"} || echo "the service is started all the same; it tries again every two seconds"
systemctl daemon-reload
systemctl enable --now edgewright || fail "the service does not start: journalctl -u edgewright"
echo "set up"
sync
