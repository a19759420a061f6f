"""With what a study is computed: settings, warehouse, GPU, language model, adapter store."""

from im_resources.process import settle

settle()
