"""What is computed: the assets of the study, one folder a stage, in the order of the flow."""
