"""The database and the tables are lost, and restored as infra/README.md says: the next night has nothing to do."""

import pytest
import s3fs

from infra import cluster
from infra.test_nights import summary, tagged_tracks

IN_DATABASE = ("exec", "--stdin", "postgres-0", "--", "sh", "-c")
PASSWORD = "export PGPASSWORD=$(cat /etc/postgres/password) PGHOST=127.0.0.1 PGUSER=mlflow; "  # noqa: S105 # of a file
TABLES = ("features", "features-failures", "tags", "tags-failures")


@pytest.mark.torture
def test_lost_database_and_tables_are_restored(store: s3fs.S3FileSystem) -> None:
    succeeded, log = cluster.night("night-before-backup", 900)
    assert succeeded, log
    tagged = tagged_tracks()
    dump = cluster.kubectl(*IN_DATABASE, f"{PASSWORD} pg_dump --clean --if-exists mlflow")
    for table in TABLES:
        store.copy(f"music/{table}", f"music/backup/{table}", recursive=True)

    cluster.kubectl(*IN_DATABASE, f"{PASSWORD} psql mlflow", text="DROP SCHEMA public CASCADE; CREATE SCHEMA public;")
    for table in TABLES:
        store.rm(f"music/{table}", recursive=True)
    cluster.kubectl("rollout", "restart", "deployment/mlflow")

    cluster.kubectl(*IN_DATABASE, f"{PASSWORD} psql --set=ON_ERROR_STOP=1 mlflow", text=dump)
    for table in TABLES:
        store.copy(f"music/backup/{table}", f"music/{table}", recursive=True)
    cluster.kubectl("rollout", "restart", "deployment/mlflow")
    cluster.kubectl("rollout", "status", "deployment/mlflow", "--timeout=240s")
    succeeded, log = cluster.night("night-after-restore", 900)
    assert succeeded, log
    assert [job["was_needed"] for job in summary(store)["jobs"].values()] == [False, False], log
    assert tagged_tracks() == tagged
    store.rm("music/backup", recursive=True)
