"""Where a study's lake is: the catalog's database, a schema of it, and the folder of the data."""

from dataclasses import dataclass

from im_resources.tables import WarehouseError

PREFIX = "ducklake:"
NAME = "warehouse"  # of the database in SQL, as of a file
SNAPSHOT = "lake snapshot"  # metadata of a materialization: the snapshot that its write made
LONGEST = 63  # bytes of a name in Postgres, which cuts longer ones without a word


@dataclass(frozen=True)
class LakeAddress:
    """A lake: one DuckLake with its own metadata and its own data for each study.

    ``catalog``: a Postgres database, without a password; ``schema``: of that database, the study's
    name; ``data``: a folder, or a URL such as s3://bucket/folder, which holds one folder a study.
    """

    catalog: str
    schema: str
    data: str

    def __post_init__(self) -> None:
        """Raises WarehouseError: the schema cannot be one of Postgres."""
        taken = self.schema.lower() in ("public", "information_schema")
        if taken or self.schema.lower().startswith("pg_") or len(self.schema) > LONGEST:
            raise WarehouseError(
                f"the study {self.schema!r} cannot be in a lake, whose tables are in a schema of "
                f"Postgres by its name: choose one of at most {LONGEST} letters that does not "
                "begin with pg_, and is not public or information_schema"
            )

    @property
    def folder(self) -> str:
        """Where the study's Parquet files are, with a slash at its end."""
        return f"{self.data.rstrip('/')}/{self.schema}/"

    def __str__(self) -> str:
        return f"{PREFIX}{self.catalog} {self.schema} {self.data}"

    @classmethod
    def parse(cls, text: str) -> "LakeAddress | None":
        """The address that is written so; None when the text is none, such as a path."""
        if not text.startswith(PREFIX):
            return None
        return cls(*text.removeprefix(PREFIX).split(" ", 2))
