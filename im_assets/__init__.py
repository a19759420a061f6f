"""What is computed: the assets of the study, one folder a stage, in the order of the flow."""

import warnings

import dagster as dg

# backfill_policy is marked beta in dagster 1.13, and the warning would come up once an asset.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
