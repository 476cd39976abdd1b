#!/bin/sh
# Write FOLDER/share/sbom.cdx.json: the packages of the virtual environment FOLDER, in CycloneDX's form: sbom.sh FOLDER
set -eu
unset PIP_CONSTRAINT  # of the packages that are listed
python3.11 -m venv /tmp/cyclonedx
/tmp/cyclonedx/bin/pip install --no-cache-dir --disable-pip-version-check cyclonedx-bom==7.5.0
mkdir -p "$1/share"
/tmp/cyclonedx/bin/cyclonedx-py environment --output-reproducible --output-file "$1/share/sbom.cdx.json" "$1/bin/python"
rm -rf /tmp/cyclonedx
