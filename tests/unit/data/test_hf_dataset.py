import sys
from types import SimpleNamespace

import pytest

from icae.data.corpus import DatasetSpec, parse_dataset, read_corpus
from icae.errors import InputError, MissingDependencyError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("hf:owner/name", {"name": "owner/name"}),
        ("hf:owner/name:en", {"name": "owner/name", "config": "en"}),
        ("hf:owner/name:en:test", {"name": "owner/name", "config": "en", "split": "test"}),
        ("hf:owner/name::test", {"name": "owner/name", "split": "test"}),
        ("hf:owner/name@v1:en", {"name": "owner/name", "revision": "v1", "config": "en"}),
        ("hf:/data/x", {"name": "/data/x", "local": True}),
        ("hf:/data/x@y:test", {"name": "/data/x@y", "local": True, "split": "test"}),
    ],
)
def test_spec_is_read(text, spec):
    assert parse_dataset(text) == DatasetSpec(**{"local": False, **spec})


@pytest.mark.parametrize("text", ["hf:", "hf:a/b:c:d:e", "hf:/x:a:b", "hf:a/b@"])
def test_other_forms_are_refused(text):
    with pytest.raises(InputError, match="hf:OWNER/NAME"):
        next(read_corpus([text]))


class FakeDatasets(SimpleNamespace):
    """The package as this code uses it; notes what it was asked for."""

    class DatasetDict(dict):
        pass

    def __init__(self, rows, error=None):
        failure = type("DatasetsError", (Exception,), {})
        super().__init__(rows=rows, error=error, exceptions=SimpleNamespace(DatasetsError=failure))

    def load_dataset(self, name, config, **options):
        self.asked = (name, config, options)
        if self.error is not None:
            raise self.error
        return iter(self.rows)

    def load_from_disk(self, path):
        return self.rows


@pytest.fixture
def fake(monkeypatch):
    def install(rows, error=None):
        package = FakeDatasets(rows, error)
        monkeypatch.setitem(sys.modules, "datasets", package)
        return package

    return install


def test_dataset_of_the_hub_is_streamed(fake):
    package = fake([{"text": "one", "title": "T", "id": 1}, {"text": None}, {"text": "two"}])
    documents = list(read_corpus(["hf:owner/name@v1:en:test"]))
    assert [(one.text, one.title, one.source) for one in documents] == [
        ("one", "T", "name"),
        ("two", None, "name"),
    ]
    options = {"split": "test", "revision": "v1", "streaming": True}
    assert package.asked == ("owner/name", "en", options)


@pytest.mark.parametrize("error", [FileNotFoundError("no such dataset"), ValueError("bad split")])
def test_dataset_that_cannot_be_opened_is_explained(fake, error):
    fake([], error)
    with pytest.raises(InputError, match=r"owner/name cannot be read(.|\n)*" + str(error)):
        list(read_corpus(["hf:owner/name"]))


def test_dataset_without_text_is_refused(fake):
    fake([{"body": "x"}])
    with pytest.raises(InputError, match="fields body"):
        list(read_corpus(["hf:owner/name"]))


def test_split_of_a_folder_is_chosen(fake, tmp_path):
    fake(FakeDatasets.DatasetDict(train=[{"text": "a"}], test=[{"text": "b"}]))
    assert [one.text for one in read_corpus([f"hf:{tmp_path}:test"])] == ["b"]
    with pytest.raises(InputError, match="splits train, test"):
        list(read_corpus([f"hf:{tmp_path}:other"]))


def test_missing_folder_is_refused(fake, tmp_path):
    fake([])
    with pytest.raises(InputError, match="no folder"):
        list(read_corpus([f"hf:{tmp_path}/absent"]))


def test_missing_package_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        list(read_corpus(["hf:owner/name"]))


@pytest.mark.slow
def test_saved_dataset_is_read_by_the_real_package(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"text": ["one", "two"], "title": ["A", None]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    documents = list(read_corpus([f"hf:{tmp_path / 'saved'}"]))
    assert [(one.text, one.title) for one in documents] == [("one", "A"), ("two", None)]
    assert documents[0].source == "saved"
