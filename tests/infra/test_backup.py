"""The database and the tables are lost, and restored as infra/README.md says: the next night has nothing to do."""

import pytest
import s3fs

from infra import cluster

IN_DATABASE = ("exec", "--stdin", "postgres-0", "--", "sh", "-c")
PASSWORD = "export PGPASSWORD=$(cat /etc/postgres/password) PGHOST=127.0.0.1 PGUSER=mlflow; "  # noqa: S105 # of a file
TABLES = ("features", "features-failures", "tags", "tags-failures")


@pytest.mark.torture
def test_lost_database_and_tables_are_restored(store: s3fs.S3FileSystem) -> None:
    succeeded, log = cluster.night("night-before-backup", 900)
    assert succeeded, log
    tagged = cluster.models_by_track()
    dump = cluster.kubectl(*IN_DATABASE, f"{PASSWORD} pg_dump --clean --if-exists mlflow")
    for table in TABLES:
        copy_folder(store, f"music/{table}", f"music/backup/{table}")

    scale_mlflow(0)
    cluster.kubectl(*IN_DATABASE, f"{PASSWORD} psql mlflow", text="DROP SCHEMA public CASCADE; CREATE SCHEMA public;")
    for table in TABLES:
        store.rm(f"music/{table}", recursive=True)

    cluster.kubectl(*IN_DATABASE, f"{PASSWORD} psql --set=ON_ERROR_STOP=1 mlflow", text=dump)
    for table in TABLES:
        copy_folder(store, f"music/backup/{table}", f"music/{table}")
    scale_mlflow(1)
    succeeded, log = cluster.night("night-after-restore", 900)
    assert succeeded, log
    assert [job["was_needed"] for job in cluster.summary(store)["jobs"].values()] == [False, False], log
    assert cluster.models_by_track() == tagged
    store.rm("music/backup", recursive=True)


def copy_folder(store: s3fs.S3FileSystem, source: str, target: str) -> None:
    """Copy all objects below a key, as `aws s3 sync` does; s3fs copies a folder into one that exists."""
    for path in store.find(source):
        store.copy(path, target + path.removeprefix(source))


def scale_mlflow(n: int) -> None:
    cluster.kubectl("scale", "deployment/mlflow", f"--replicas={n}")
    cluster.kubectl("rollout", "status", "deployment/mlflow", "--timeout=240s")
    selector = "app.kubernetes.io/name=mlflow"
    cluster.wait_for(lambda: len(cluster.objects("pods", f"--selector={selector}")) == n, f"{n} pods of MLflow", 120)
