#!/bin/sh
# Write the list of a virtual environment's packages, in the form of CycloneDX that scanners read: sbom.sh FOLDER
#
# It is FOLDER/share/sbom.cdx.json.
set -eu
python3.11 -m venv /tmp/cyclonedx
/tmp/cyclonedx/bin/pip install --no-cache-dir --disable-pip-version-check cyclonedx-bom==7.5.0
mkdir -p "$1/share"
/tmp/cyclonedx/bin/cyclonedx-py environment --output-reproducible --output-file "$1/share/sbom.cdx.json" "$1/bin/python"
rm -rf /tmp/cyclonedx
