"""Nothing is pickled or unpickled, no model brings code along, and the paper's are pinned."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from im_resources.study import PROJECT_ROOT

SOURCES = sorted(
    path
    for package in ("im_assets", "im_resources", "benchmarks")
    for path in (PROJECT_ROOT / package).rglob("*.py")
)
# What goes between a run and the nodes of its own cluster, which is how Ray sends things anyway:
# nothing that is pickled is kept, or read from a file.
SENT = PROJECT_ROOT / "im_resources" / "cluster"
PICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"read_pickle", "to_pickle"}
# No public source names a commit of these two; a run logs the one it took.
UNPINNED = {"OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5", "MingZhong/unieval-dialog"}


def faults(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            for module in modules:
                if module.split(".")[0] in PICKLING:
                    yield f"line {node.lineno}: imports {module}"
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        called = ast.unparse(node.func)
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called in ("torch.load", "torch.save") or node.func.attr in CALLS:
            yield f"line {node.lineno}: {called}"
        if given.get("trust_remote_code", "False") != "False":
            yield f"line {node.lineno}: {called} trusts remote code"
        if given.get("allow_pickle", "False") != "False":
            yield f"line {node.lineno}: {called} allows pickles"
        if given.get("safe_serialization", "True") != "True":
            yield f"line {node.lineno}: {called} writes pickles"
        if (
            node.func.attr == "from_pretrained"
            and not re.search("Tokenizer|PeftModel|Config", called)  # weights_file saw the latter's
            and given.get("use_safetensors") != "True"
            and "gguf_file" not in given
        ):
            yield f"line {node.lineno}: {called} without use_safetensors=True"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT_ROOT)))
def test_no_source_file_pickles_or_trusts_a_models_code(path: Path) -> None:
    found = list(faults(ast.parse(path.read_text(encoding="utf-8"))))
    if path.parent == SENT:
        found = [fault for fault in found if not fault.endswith("imports pickle")]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "frame.to_pickle(path)",
        "numpy.load(path, allow_pickle=True)",
        "AutoTokenizer.from_pretrained(path, trust_remote_code=True)",
        "AutoModel.from_pretrained(path)",
        "model.save_pretrained(path, safe_serialization=False)",
    ],
)
def test_what_is_looked_for_is_found(code: str) -> None:
    assert list(faults(ast.parse(code)))


def test_the_papers_models_and_data_are_pinned_to_commits() -> None:
    profile = yaml.safe_load((PROJECT_ROOT / "profiles" / "paper.yaml").read_text("utf-8"))
    sources = [*profile["models"].values(), *profile["data"]["candidates"].values()]
    hubs = [s for s in [*sources, profile["data"]["unseen"]] if isinstance(s, dict) and "hub" in s]
    assert len(hubs) == 6
    for source in hubs:
        if source["hub"] not in UNPINNED:
            assert re.fullmatch(r"[0-9a-f]{40}", source["revision"]), source
