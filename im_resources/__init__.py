"""With what a study is computed: settings, warehouse, GPU, language model, adapter store."""
