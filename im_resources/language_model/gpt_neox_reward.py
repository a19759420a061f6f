"""Open-Assistant's GPT-NeoX reward models, the paper's among them; transformers has no such class.

Their definition, whose configuration and weight names this module reads:
https://github.com/LAION-AI/Open-Assistant/blob/main/model/model_training/models/reward_model.py
"""

import torch
import torch.nn.functional as F
from transformers import GPTNeoXConfig, GPTNeoXModel, GPTNeoXPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class GPTNeoXRewardConfig(GPTNeoXConfig):
    """The config.json of an Open-Assistant reward model."""

    model_type = "gpt_neox_reward_model"
    pooling: str = "last"


class GPTNeoXRewardModel(GPTNeoXPreTrainedModel):
    """A GPT-NeoX body and a projection of the last token's hidden state to one number."""

    config_class = GPTNeoXRewardConfig

    def __init__(self, config: GPTNeoXRewardConfig) -> None:
        super().__init__(config)
        self.gpt_neox = GPTNeoXModel(config)
        self.out_proj = torch.nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> SequenceClassifierOutput:
        """Logits float32 [rows, 1], taken at the last position that the mask attends to."""
        states = self.gpt_neox(
            input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        last = attention_mask.cumsum(dim=1).argmax(dim=1)
        pooled = states[torch.arange(len(states), device=states.device), last]
        # In float32 whatever the body's precision: a logit in bf16 has but three digits.
        head = self.out_proj
        return SequenceClassifierOutput(
            logits=F.linear(pooled.float(), head.weight.float(), head.bias.float())
        )
