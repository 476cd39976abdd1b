"""The image does the whole line by itself: as uid 1000, on a read-only root, without a network."""

from infra import cluster

# Network policies begin some seconds after a pod; without a name server, it reaches nothing by a name from the start.
NO_NETWORK = [
    {"op": "add", "path": "/spec/template/spec/dnsPolicy", "value": "None"},
    {"op": "add", "path": "/spec/template/spec/dnsConfig", "value": {"nameservers": ["127.0.0.1"]}},
]
LINE = """
[ "$(id -u)" = 1000 ]
if touch /app/written; then exit 1; fi
if python -c 'import socket; socket.create_connection(("s3", 8333), 5)'; then exit 1; fi
export MLFLOW_TRACKING_URI=sqlite:////tmp/mlflow.db
mkdir /tmp/songs
python - <<'END'
import numpy as np, soundfile
for n in range(3):
    waveform = 0.3 * np.sin(2 * np.pi * 220 * (n + 1) * np.arange(8 * 16_000) / 16_000)
    soundfile.write(f"/tmp/songs/{n}.flac", waveform.astype(np.float32), 16_000)
END
musictag tag /tmp/songs
python pipelines/featurize.py --runner=DirectRunner --catalog /tmp/songs --features /tmp/features
python pipelines/tag.py --features /tmp/features --tags /tmp/tags --model mtt-musicnn
musictag verify /tmp/tags
python -c 'import json; assert len(json.load(open("/opt/musictag/share/sbom.cdx.json"))["components"]) > 100'
"""


def test_image_needs_no_network_and_no_rights(overlay: None) -> None:
    succeeded, log = cluster.run_job("image-alone", "bash", "-euxc", LINE, patch=NO_NETWORK)
    assert succeeded, log
    assert log.count("3 listed = 3 written") == 2, log
