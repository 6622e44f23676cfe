#!/bin/sh
# Installs Home Assistant 2024.3.3, the last that runs on Python 3.11, in a virtual environment of its own (700 MB), and
# prints where: tests/edge_agent/serving/test_real_home_assistant.py needs it. What is there already is left as it is.
# Usage: home_assistant.sh [FOLDER]; $PYTHON is a Python 3.11 or 3.12.
set -eu
version=2024.3.3
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/edgewright/home-assistant}
if [ "$(cat "$folder/installed" 2>/dev/null)" != "$version" ]; then
    "${PYTHON:-python3.11}" -m venv "$folder"
    pip() { "$folder/bin/python" -m pip --quiet --quiet --disable-pip-version-check "$@"; }
    pip install --no-deps "homeassistant==$version"
    # Each component names in its manifest what it needs, which Home Assistant would else install as it starts:
    # MQTT, all that every Home Assistant loads, and recorder, which these import.
    "$folder/bin/python" - >"$folder/requirements.txt" <<'END'
import ast, json, pathlib, sysconfig

package = pathlib.Path(sysconfig.get_path("purelib"), "homeassistant")
sets = {}
for node in ast.parse((package / "bootstrap.py").read_text()).body:
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Set):
        sets[node.targets[0].id] = {one.value for one in node.value.elts if isinstance(one, ast.Constant)}
components = ["mqtt", "recorder", *sets["CORE_INTEGRATIONS"], *sets["DEFAULT_INTEGRATIONS"]]
requirements, seen = set(), set()
while components:
    if (name := components.pop()) not in seen:
        seen.add(name)
        manifest = json.loads((package / "components" / name / "manifest.json").read_text())
        components += manifest.get("dependencies", [])
        requirements.update(manifest.get("requirements", []))
print("\n".join(sorted(requirements)))
END
    constraints=$(echo "$folder"/lib/python3.*/site-packages/homeassistant/package_constraints.txt)
    # hass-nabucasa 0.78.0 brings an acme that breaks with josepy 2; MQTT loads camera, which imports numpy.
    pip install -c "$constraints" -r "$folder/requirements.txt" "homeassistant==$version" "josepy<2" numpy
    echo "$version" >"$folder/installed"
fi
echo "$folder"
