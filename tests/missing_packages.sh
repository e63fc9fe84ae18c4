#!/bin/sh
# Say which Debian packages the window tests lack; the tests themselves skip with the same reason.
command -v dpkg-query >/dev/null 2>&1 || exit 0
[ -n "$DISPLAY$WAYLAND_DISPLAY" ] && need="" || need="xvfb xauth"
missing=""
for package in $need libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-image0 libxcb-render-util0 libxcb-shape0 libxkbcommon-x11-0 libegl1 libgl1 libgl1-mesa-dri; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -z "$missing" ] || echo "Window tests will be skipped. For them: apt-get install$missing"
