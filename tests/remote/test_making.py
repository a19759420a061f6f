"""What a deployment gives a study: where its files are, and who claims its trials."""

from im_resources.claims import CatalogClaims, FileClaims
from im_resources.deployment import Deployment
from im_resources.deployment.making import adapters_of, exports_of
from tests.reporting.tables import make_study

CATALOG = "postgresql://im@127.0.0.1:5432/im"


def test_on_this_machine_alone_files_stay_in_the_studys_folder() -> None:
    study, alone = make_study(), Deployment(name="alone")
    store = adapters_of(study, alone)
    assert (store.root, store.remote) == (study.folder / "adapters", None)
    assert isinstance(store.claims, FileClaims)
    assert exports_of(study, alone).remote is None


def test_files_at_a_url_are_below_the_studys_name() -> None:
    study, deployment = make_study(), Deployment(name="shared", files="s3://mining/files")
    store, exports = adapters_of(study, deployment), exports_of(study, deployment)
    assert isinstance(store.claims, FileClaims)  # without a catalog, one machine trains
    assert store.remote is not None
    assert exports.remote is not None
    assert store.remote.place.url == f"s3://mining/files/{study.name}/adapters"
    assert exports.remote.place.url == f"s3://mining/files/{study.name}/exports"


def test_with_a_lake_its_catalog_holds_the_claims() -> None:
    study = make_study()
    lake = {"kind": "ducklake", "catalog": CATALOG, "data": "s3://mining/tables"}
    deployment = Deployment.model_validate({"name": "lake", "warehouse": lake, "files": "s3://m/f"})
    claims = adapters_of(study, deployment).claims
    assert claims == CatalogClaims(study.folder / "adapters", CATALOG, study.name)
