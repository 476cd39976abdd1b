# Each line is a script as a person runs it.
set -euo pipefail
labels=(--catalog s3://music/catalog.csv --features s3://music/features)
# An interrupted training is continued by the next attempt.
for attempt in 1 2 3; do
  python infra/run_on_cluster.py /etc/musictag-engines/train.yaml pipelines/train.py "${labels[@]}" \
    --checkpoints s3://music/checkpoints --num-workers 2 --model cnn --epochs 6 && break
  [ $attempt -lt 3 ]
done
python pipelines/evaluate.py "${labels[@]}"
python pipelines/promote.py
