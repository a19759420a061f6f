"""``python -m tests.cluster.driver PROFILE``: the finetunes of a small study, where IM_DEPLOYMENT
says. Prints as JSON which of them were trained just now."""

import json
import sys

from im_assets.experiments.finetuning import finetune_all
from im_resources.deployment.making import adapters_of, gpu_of
from im_resources.plugins import load_plugins
from im_resources.study import load_study
from tests.experiments.small_study import mixtures

if __name__ == "__main__":
    study = load_study(sys.argv[1])
    load_plugins(study)
    done = finetune_all(mixtures(), study, gpu_of(study), adapters_of(study))
    print(json.dumps({key: trained.now for key, trained in done}))
