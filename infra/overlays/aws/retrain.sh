# Each line is a script as a person runs it.
set -euo pipefail
labels=(--catalog s3://BUCKET/catalog.parquet --features s3://BUCKET/features)
# An interrupted training is continued by the next attempt.
for attempt in 1 2 3; do
  python infra/run_on_cluster.py /etc/musictag-engines/train.yaml pipelines/train.py "${labels[@]}" \
    --checkpoints s3://BUCKET/checkpoints --num-workers 4 --use-gpu --batch-size 1024 --init msd-musicnn,mtt-musicnn && break
  [ $attempt -lt 3 ]
done
python pipelines/evaluate.py "${labels[@]}"
python pipelines/promote.py
