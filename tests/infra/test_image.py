"""The image does the whole line by itself: as uid 1000, on a read-only root, without a network."""

import json

from infra import cluster

NO_NETWORK = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "image-alone"},
    "spec": {"podSelector": {"matchLabels": {"job-name": "image-alone"}}, "policyTypes": ["Egress"], "egress": []},
}
LINE = """
[ "$(id -u)" = 1000 ]
if touch /app/written; then exit 1; fi
n=0  # a network policy takes some seconds
while python -c 'import socket; socket.create_connection(("s3", 8333), 5)'; do
  n=$((n + 1))
  [ $n -lt 30 ]
  sleep 1
done
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
    cluster.kubectl("apply", "--server-side", "--filename=-", text=json.dumps(NO_NETWORK))
    succeeded, log = cluster.run_job("image-alone", "bash", "-euxc", LINE)
    assert succeeded, log
    assert log.count("3 listed = 3 written") == 2, log
