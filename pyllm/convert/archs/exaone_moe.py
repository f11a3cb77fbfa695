"""exaone-moe: K-EXAONE."""

from __future__ import annotations

from ..mapping import DECODER, EXPERTS, QK_NORM, SHARED, Mapping

NAME = "exaone-moe"
CLASSES = ("ExaoneMoeForCausalLM", "ExaoneMoEForCausalLM")
OWN = {"{L}.mlp.e_score_correction_bias": "{B}.exp_probs_b.bias"}


def convert(m: Mapping) -> None:
    m.hparams()
    m.windows(4)
    m.routed_experts(sigmoid=True, normalize=True)
    m.drop(r"mtp\..*")
    m.drop_predictors()
    m.move(DECODER | EXPERTS | QK_NORM | SHARED | OWN)
