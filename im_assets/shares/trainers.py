"""A mixture as trainers read it: LLaMA-Factory's and Axolotl's data settings.

LLaMA-Factory draws from datasets by probabilities (``mix_strategy``, ``interleave_probs`` in
https://github.com/hiyouga/LLaMA-Factory/blob/main/src/llamafactory/hparams/data_args.py; files are
described in ``dataset_info.json``, https://github.com/hiyouga/LLaMA-Factory/tree/main/data).
Axolotl has no probabilities: its mixture is what the files hold
(https://docs.axolotl.ai/docs/dataset_loading.html).
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd
import yaml

Shape = Literal["alpaca", "messages", "sharegpt"]

LLAMA_FACTORY, DATASET_INFO, AXOLOTL = "llama_factory.yaml", "dataset_info.json", "axolotl.yaml"
_DESCRIBED: Mapping[Shape, dict[str, Any]] = {
    "alpaca": {
        "formatting": "alpaca",
        "columns": {"prompt": "instruction", "query": "input", "response": "output"},
    },
    "messages": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "observation_tag": "tool",
            "function_tag": "function_call",
            "system_tag": "system",
        },
    },
    "sharegpt": {
        "formatting": "sharegpt",
        "columns": {"messages": "conversations"},
        "tags": {
            "role_tag": "from",
            "content_tag": "value",
            "user_tag": "human",
            "assistant_tag": "gpt",
            "observation_tag": "observation",
            "function_tag": "function_call",
            "system_tag": "system",
        },
    },
}
_TYPED: Mapping[Shape, dict[str, Any]] = {
    "alpaca": {"type": "alpaca"},
    "messages": {
        "type": "chat_template",
        "field_messages": "messages",
        "message_property_mappings": {"role": "role", "content": "content"},
    },
    "sharegpt": {
        "type": "chat_template",
        "field_messages": "conversations",
        "message_property_mappings": {"role": "from", "content": "value"},
        "roles": {
            "system": ["system"],
            "user": ["human"],
            "assistant": ["gpt"],
            "tool": ["observation"],
        },
    },
}


def interleaved(found: pd.DataFrame) -> str | None:
    """The proposed mixture as LLaMA-Factory draws it from the sources as they came; None where
    nothing is proposed.

    Args:
        found: as `telling.shares_table` gives it.
    """
    wanted = found[found["proposed_share"] > 0]
    if wanted.empty:
        return None
    names = ",".join(wanted["source"])
    shares = ",".join(f"{share:.4f}" for share in wanted["proposed_share"])
    return f"dataset: {names}\nmix_strategy: interleave_over\ninterleave_probs: {shares}\n"


def joined(names: Mapping[str, str]) -> str:
    """LLaMA-Factory's settings for files that hold the mixture: they are joined, not drawn from.

    Args:
        names: the file of each dataset, both in the folder that it is run in.
    """
    head = "# The files beside this one hold the mixture: they are joined as they are.\n"
    settings = {"dataset_dir": ".", "dataset": ",".join(names), "mix_strategy": "concat"}
    return head + yaml.safe_dump(settings, sort_keys=False)


def dataset_info(names: Mapping[str, str], shapes: Mapping[str, Shape]) -> str:
    """LLaMA-Factory's description of the files.

    Args:
        names: the file of each dataset.
        shapes: of its rows.
    """
    found = {name: {"file_name": file} | _DESCRIBED[shapes[name]] for name, file in names.items()}
    return json.dumps(found, indent=2) + "\n"


def axolotl(names: Mapping[str, str], shapes: Mapping[str, Shape]) -> str:
    """Axolotl's settings for the same files.

    What is repeated in a file is meant to be: removing duplicates would undo the mixture.
    """
    datasets = [
        {"path": file, "ds_type": "json"} | _TYPED[shapes[name]] for name, file in names.items()
    ]
    settings = {"datasets": datasets, "dataset_exact_deduplication": False}
    return yaml.safe_dump(settings, sort_keys=False)
