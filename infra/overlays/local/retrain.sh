# Each line is a script as a person runs it.
set -euo pipefail
labels=(--catalog s3://music/catalog.csv --features s3://music/features)
python infra/run_on_cluster.py /etc/musictag-engines/train.yaml pipelines/train.py "${labels[@]}" \
  --checkpoints s3://music/checkpoints --num-workers 2 --model cnn --epochs 6
python pipelines/evaluate.py "${labels[@]}"
python pipelines/promote.py
